import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GalleryState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GALLERY_STATE_UNSPECIFIED: _ClassVar[GalleryState]
    GALLERY_STATE_READY: _ClassVar[GalleryState]
    GALLERY_STATE_MOVING: _ClassVar[GalleryState]
    GALLERY_STATE_STALE: _ClassVar[GalleryState]

class IdentityState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IDENTITY_STATE_UNSPECIFIED: _ClassVar[IdentityState]
    IDENTITY_STATE_READY: _ClassVar[IdentityState]
    IDENTITY_STATE_NEEDS_IMAGES: _ClassVar[IdentityState]
GALLERY_STATE_UNSPECIFIED: GalleryState
GALLERY_STATE_READY: GalleryState
GALLERY_STATE_MOVING: GalleryState
GALLERY_STATE_STALE: GalleryState
IDENTITY_STATE_UNSPECIFIED: IdentityState
IDENTITY_STATE_READY: IdentityState
IDENTITY_STATE_NEEDS_IMAGES: IdentityState

class Gallery(_message.Message):
    __slots__ = ("name", "deployment", "model_version", "keep_images", "revision", "identity_count", "needs_images_count", "create_time", "update_time", "is_pinned", "state")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    KEEP_IMAGES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_COUNT_FIELD_NUMBER: _ClassVar[int]
    NEEDS_IMAGES_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    IS_PINNED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    deployment: str
    model_version: str
    keep_images: bool
    revision: int
    identity_count: int
    needs_images_count: int
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    is_pinned: bool
    state: GalleryState
    def __init__(self, name: _Optional[str] = ..., deployment: _Optional[str] = ..., model_version: _Optional[str] = ..., keep_images: _Optional[bool] = ..., revision: _Optional[int] = ..., identity_count: _Optional[int] = ..., needs_images_count: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., is_pinned: _Optional[bool] = ..., state: _Optional[_Union[GalleryState, str]] = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ("name", "display_name", "state", "image_count", "kept_image_count", "create_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    KEPT_IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    state: IdentityState
    image_count: int
    kept_image_count: int
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., state: _Optional[_Union[IdentityState, str]] = ..., image_count: _Optional[int] = ..., kept_image_count: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("x", "y")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ...) -> None: ...

class FaceImage(_message.Message):
    __slots__ = ("content", "landmarks")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    landmarks: _containers.RepeatedCompositeFieldContainer[Point]
    def __init__(self, content: _Optional[bytes] = ..., landmarks: _Optional[_Iterable[_Union[Point, _Mapping]]] = ...) -> None: ...

class CreateGalleryRequest(_message.Message):
    __slots__ = ("parent", "gallery_id", "deployment", "keep_images", "request_id", "is_pinned")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    GALLERY_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    KEEP_IMAGES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IS_PINNED_FIELD_NUMBER: _ClassVar[int]
    parent: str
    gallery_id: str
    deployment: str
    keep_images: bool
    request_id: str
    is_pinned: bool
    def __init__(self, parent: _Optional[str] = ..., gallery_id: _Optional[str] = ..., deployment: _Optional[str] = ..., keep_images: _Optional[bool] = ..., request_id: _Optional[str] = ..., is_pinned: _Optional[bool] = ...) -> None: ...

class CreateGalleryResponse(_message.Message):
    __slots__ = ("gallery",)
    GALLERY_FIELD_NUMBER: _ClassVar[int]
    gallery: Gallery
    def __init__(self, gallery: _Optional[_Union[Gallery, _Mapping]] = ...) -> None: ...

class GetGalleryRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetGalleryResponse(_message.Message):
    __slots__ = ("gallery",)
    GALLERY_FIELD_NUMBER: _ClassVar[int]
    gallery: Gallery
    def __init__(self, gallery: _Optional[_Union[Gallery, _Mapping]] = ...) -> None: ...

class ListGalleriesRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListGalleriesResponse(_message.Message):
    __slots__ = ("galleries", "next_page_token")
    GALLERIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    galleries: _containers.RepeatedCompositeFieldContainer[Gallery]
    next_page_token: str
    def __init__(self, galleries: _Optional[_Iterable[_Union[Gallery, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateGalleryRequest(_message.Message):
    __slots__ = ("name", "is_pinned")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IS_PINNED_FIELD_NUMBER: _ClassVar[int]
    name: str
    is_pinned: bool
    def __init__(self, name: _Optional[str] = ..., is_pinned: _Optional[bool] = ...) -> None: ...

class UpdateGalleryResponse(_message.Message):
    __slots__ = ("gallery",)
    GALLERY_FIELD_NUMBER: _ClassVar[int]
    gallery: Gallery
    def __init__(self, gallery: _Optional[_Union[Gallery, _Mapping]] = ...) -> None: ...

class DeleteGalleryRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteGalleryResponse(_message.Message):
    __slots__ = ("identity_count",)
    IDENTITY_COUNT_FIELD_NUMBER: _ClassVar[int]
    identity_count: int
    def __init__(self, identity_count: _Optional[int] = ...) -> None: ...

class EnrolIdentityRequest(_message.Message):
    __slots__ = ("parent", "identity_id", "display_name", "images", "replace_existing", "request_id")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    REPLACE_EXISTING_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    parent: str
    identity_id: str
    display_name: str
    images: _containers.RepeatedCompositeFieldContainer[FaceImage]
    replace_existing: bool
    request_id: str
    def __init__(self, parent: _Optional[str] = ..., identity_id: _Optional[str] = ..., display_name: _Optional[str] = ..., images: _Optional[_Iterable[_Union[FaceImage, _Mapping]]] = ..., replace_existing: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class EnrolIdentityResponse(_message.Message):
    __slots__ = ("identity",)
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    identity: Identity
    def __init__(self, identity: _Optional[_Union[Identity, _Mapping]] = ...) -> None: ...

class ListIdentitiesRequest(_message.Message):
    __slots__ = ("parent", "state", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    state: IdentityState
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., state: _Optional[_Union[IdentityState, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListIdentitiesResponse(_message.Message):
    __slots__ = ("identities", "next_page_token")
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    identities: _containers.RepeatedCompositeFieldContainer[Identity]
    next_page_token: str
    def __init__(self, identities: _Optional[_Iterable[_Union[Identity, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteIdentityRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteIdentityResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VerifyRequest(_message.Message):
    __slots__ = ("name", "image", "identity_id", "other_image", "threshold")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    OTHER_IMAGE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    name: str
    image: FaceImage
    identity_id: str
    other_image: FaceImage
    threshold: float
    def __init__(self, name: _Optional[str] = ..., image: _Optional[_Union[FaceImage, _Mapping]] = ..., identity_id: _Optional[str] = ..., other_image: _Optional[_Union[FaceImage, _Mapping]] = ..., threshold: _Optional[float] = ...) -> None: ...

class VerifyResponse(_message.Message):
    __slots__ = ("is_same", "similarity", "distance", "threshold", "model_version")
    IS_SAME_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    is_same: bool
    similarity: float
    distance: float
    threshold: float
    model_version: str
    def __init__(self, is_same: _Optional[bool] = ..., similarity: _Optional[float] = ..., distance: _Optional[float] = ..., threshold: _Optional[float] = ..., model_version: _Optional[str] = ...) -> None: ...

class IdentifyRequest(_message.Message):
    __slots__ = ("name", "image", "top_k", "threshold")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    name: str
    image: FaceImage
    top_k: int
    threshold: float
    def __init__(self, name: _Optional[str] = ..., image: _Optional[_Union[FaceImage, _Mapping]] = ..., top_k: _Optional[int] = ..., threshold: _Optional[float] = ...) -> None: ...

class Match(_message.Message):
    __slots__ = ("identity", "display_name", "similarity", "is_same")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    IS_SAME_FIELD_NUMBER: _ClassVar[int]
    identity: str
    display_name: str
    similarity: float
    is_same: bool
    def __init__(self, identity: _Optional[str] = ..., display_name: _Optional[str] = ..., similarity: _Optional[float] = ..., is_same: _Optional[bool] = ...) -> None: ...

class IdentifyResponse(_message.Message):
    __slots__ = ("matches", "is_unknown", "threshold", "compared_count", "needs_images_count", "model_version")
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    IS_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    COMPARED_COUNT_FIELD_NUMBER: _ClassVar[int]
    NEEDS_IMAGES_COUNT_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    matches: _containers.RepeatedCompositeFieldContainer[Match]
    is_unknown: bool
    threshold: float
    compared_count: int
    needs_images_count: int
    model_version: str
    def __init__(self, matches: _Optional[_Iterable[_Union[Match, _Mapping]]] = ..., is_unknown: _Optional[bool] = ..., threshold: _Optional[float] = ..., compared_count: _Optional[int] = ..., needs_images_count: _Optional[int] = ..., model_version: _Optional[str] = ...) -> None: ...

class ReenrolGalleryRequest(_message.Message):
    __slots__ = ("name", "deployment")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    deployment: str
    def __init__(self, name: _Optional[str] = ..., deployment: _Optional[str] = ...) -> None: ...

class ReenrolGalleryResponse(_message.Message):
    __slots__ = ("done_count", "total_count", "gallery")
    DONE_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_COUNT_FIELD_NUMBER: _ClassVar[int]
    GALLERY_FIELD_NUMBER: _ClassVar[int]
    done_count: int
    total_count: int
    gallery: Gallery
    def __init__(self, done_count: _Optional[int] = ..., total_count: _Optional[int] = ..., gallery: _Optional[_Union[Gallery, _Mapping]] = ...) -> None: ...
