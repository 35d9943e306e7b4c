import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DatasetFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATASET_FORMAT_UNSPECIFIED: _ClassVar[DatasetFormat]
    DATASET_FORMAT_COCO: _ClassVar[DatasetFormat]
    DATASET_FORMAT_VOC: _ClassVar[DatasetFormat]
    DATASET_FORMAT_YOLO: _ClassVar[DatasetFormat]
    DATASET_FORMAT_IMAGE_FOLDER: _ClassVar[DatasetFormat]
    DATASET_FORMAT_MASK_PAIRS: _ClassVar[DatasetFormat]
    DATASET_FORMAT_IDENTITY_FOLDERS: _ClassVar[DatasetFormat]
    DATASET_FORMAT_LFW: _ClassVar[DatasetFormat]
    DATASET_FORMAT_CELEBA: _ClassVar[DatasetFormat]
    DATASET_FORMAT_MNIST: _ClassVar[DatasetFormat]
    DATASET_FORMAT_POINTS: _ClassVar[DatasetFormat]
    DATASET_FORMAT_SAFETENSORS: _ClassVar[DatasetFormat]
    DATASET_FORMAT_RLE_CSV: _ClassVar[DatasetFormat]
    DATASET_FORMAT_ALIGNED: _ClassVar[DatasetFormat]
    DATASET_FORMAT_SIDE_BY_SIDE: _ClassVar[DatasetFormat]
    DATASET_FORMAT_UNALIGNED: _ClassVar[DatasetFormat]
    DATASET_FORMAT_PLAIN_TEXT: _ClassVar[DatasetFormat]
    DATASET_FORMAT_PARALLEL_TEXT: _ClassVar[DatasetFormat]
DATASET_FORMAT_UNSPECIFIED: DatasetFormat
DATASET_FORMAT_COCO: DatasetFormat
DATASET_FORMAT_VOC: DatasetFormat
DATASET_FORMAT_YOLO: DatasetFormat
DATASET_FORMAT_IMAGE_FOLDER: DatasetFormat
DATASET_FORMAT_MASK_PAIRS: DatasetFormat
DATASET_FORMAT_IDENTITY_FOLDERS: DatasetFormat
DATASET_FORMAT_LFW: DatasetFormat
DATASET_FORMAT_CELEBA: DatasetFormat
DATASET_FORMAT_MNIST: DatasetFormat
DATASET_FORMAT_POINTS: DatasetFormat
DATASET_FORMAT_SAFETENSORS: DatasetFormat
DATASET_FORMAT_RLE_CSV: DatasetFormat
DATASET_FORMAT_ALIGNED: DatasetFormat
DATASET_FORMAT_SIDE_BY_SIDE: DatasetFormat
DATASET_FORMAT_UNALIGNED: DatasetFormat
DATASET_FORMAT_PLAIN_TEXT: DatasetFormat
DATASET_FORMAT_PARALLEL_TEXT: DatasetFormat

class Dataset(_message.Message):
    __slots__ = ("name", "display_name", "version", "version_id", "family", "format", "classes", "splits", "manifest_sha256", "size_bytes", "report", "create_time")
    class SplitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: SplitCounts
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[SplitCounts, _Mapping]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_ID_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    version: int
    version_id: str
    family: str
    format: DatasetFormat
    classes: _containers.RepeatedScalarFieldContainer[str]
    splits: _containers.MessageMap[str, SplitCounts]
    manifest_sha256: str
    size_bytes: int
    report: _struct_pb2.Struct
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., version: _Optional[int] = ..., version_id: _Optional[str] = ..., family: _Optional[str] = ..., format: _Optional[_Union[DatasetFormat, str]] = ..., classes: _Optional[_Iterable[str]] = ..., splits: _Optional[_Mapping[str, SplitCounts]] = ..., manifest_sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., report: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SplitCounts(_message.Message):
    __slots__ = ("counts",)
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.ScalarMap[str, int]
    def __init__(self, counts: _Optional[_Mapping[str, int]] = ...) -> None: ...

class CreateDatasetHeader(_message.Message):
    __slots__ = ("parent", "dataset_id", "family", "format", "display_name", "request_id", "size_bytes", "sha256", "source_url", "val_fraction", "split_seed")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SOURCE_URL_FIELD_NUMBER: _ClassVar[int]
    VAL_FRACTION_FIELD_NUMBER: _ClassVar[int]
    SPLIT_SEED_FIELD_NUMBER: _ClassVar[int]
    parent: str
    dataset_id: str
    family: str
    format: DatasetFormat
    display_name: str
    request_id: str
    size_bytes: int
    sha256: str
    source_url: str
    val_fraction: float
    split_seed: int
    def __init__(self, parent: _Optional[str] = ..., dataset_id: _Optional[str] = ..., family: _Optional[str] = ..., format: _Optional[_Union[DatasetFormat, str]] = ..., display_name: _Optional[str] = ..., request_id: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., source_url: _Optional[str] = ..., val_fraction: _Optional[float] = ..., split_seed: _Optional[int] = ...) -> None: ...

class CreateDatasetRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: CreateDatasetHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[CreateDatasetHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class CreateDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "family")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    family: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., family: _Optional[str] = ...) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets", "next_page_token")
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[Dataset]
    next_page_token: str
    def __init__(self, datasets: _Optional[_Iterable[_Union[Dataset, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteDatasetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteDatasetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
