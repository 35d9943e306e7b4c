"""RecipeService: translates and delegates."""

from __future__ import annotations

from trainyard.v1 import recipe_pb2 as pb
from trainyard.v1 import recipe_pb2_grpc

from services.recipes import convert
from services.recipes.manager import RecipeManager
from services.rpc.middleware import Context
from services.rpc.paging import page_request


class RecipeServicer(recipe_pb2_grpc.RecipeServiceServicer):
    """Recipes over gRPC."""

    def __init__(self, recipes: RecipeManager) -> None:
        self._recipes = recipes

    async def ListRecipes(self, request: pb.ListRecipesRequest, context: Context) -> pb.ListRecipesResponse:
        paging = page_request(request.page_size, request.page_token, "recipes", request.family)
        after = paging.after[0] if paging.after else None
        rows = self._recipes.page(limit=paging.size + 1, after=after, family=request.family or None)
        page = paging.cut(rows, lambda recipe: (recipe.id,))
        return pb.ListRecipesResponse(
            recipes=[convert.summary_to_proto(recipe) for recipe in page.items], next_page_token=page.next_page_token
        )

    async def GetRecipe(self, request: pb.GetRecipeRequest, context: Context) -> pb.GetRecipeResponse:
        recipe = self._recipes.get(convert.recipe_id(request.name))
        return pb.GetRecipeResponse(recipe=convert.recipe_to_proto(recipe))
