"""What can be trained, with which hyper-parameters: the catalog of the workers, read without torch."""
