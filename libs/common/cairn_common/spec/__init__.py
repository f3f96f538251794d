"""The workflow specification language: OSMO's, with every problem of a file named at once.

loaded = load_workflow(text)                     # trusted text, in this process
async with SpecLoader() as loader:               # anyone's text, in limited processes
    loaded = await loader.load(text, file="train.yaml")
graph = build_graph(loaded.spec)
refused = unsupported(loaded.spec, features) + check_capacity(loaded.spec, nodes)
"""

from cairn_common.spec.capacity import NodeCapacity, check_capacity, requested
from cairn_common.spec.features import Feature, unsupported, used_features
from cairn_common.spec.graph import GroupNode, TaskNode, WorkflowGraph, build_graph
from cairn_common.spec.limits import Limits
from cairn_common.spec.load import LoadedWorkflow, load_workflow
from cairn_common.spec.loader import SpecLoader
from cairn_common.spec.localpath import inline_local_files
from cairn_common.spec.models import (
    CheckpointSpec,
    DatasetInput,
    DatasetOutput,
    DatasetUpdateOutput,
    ExitAction,
    FileSpec,
    GroupSpec,
    ResourceSpec,
    TaskInput,
    TaskSpec,
    TimeoutSpec,
    UrlInput,
    UrlOutput,
    WorkflowFile,
    WorkflowSpec,
)
from cairn_common.spec.problems import ErrorCode, Problem, SpecError
from cairn_common.spec.templating import Rendered, is_templated, render
from cairn_common.spec.token_checks import input_index, task_texts
from cairn_common.spec.tokens import Token, find_tokens, substitute

__all__ = [
    "CheckpointSpec",
    "DatasetInput",
    "DatasetOutput",
    "DatasetUpdateOutput",
    "ErrorCode",
    "ExitAction",
    "Feature",
    "FileSpec",
    "GroupNode",
    "GroupSpec",
    "Limits",
    "LoadedWorkflow",
    "NodeCapacity",
    "Problem",
    "Rendered",
    "ResourceSpec",
    "SpecError",
    "SpecLoader",
    "TaskInput",
    "TaskNode",
    "TaskSpec",
    "TimeoutSpec",
    "Token",
    "UrlInput",
    "UrlOutput",
    "WorkflowFile",
    "WorkflowGraph",
    "WorkflowSpec",
    "build_graph",
    "check_capacity",
    "find_tokens",
    "inline_local_files",
    "input_index",
    "is_templated",
    "load_workflow",
    "render",
    "requested",
    "substitute",
    "task_texts",
    "unsupported",
    "used_features",
]
