"""The templates of the example and of the guide, held against what AWS and Terraform take. Neither was applied.

The SAM template is translated by AWS's own translator; what comes of it is checked against CloudFormation's schemas.
Terraform itself is not to be had here: its file is parsed, and held against the example and the SAM template.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from fresh_venv import ROOT, run, uv_binary

from flujo.backend_lambda import worker

PROJECT = ROOT / "examples" / "lambda_project"
GUIDE = ROOT / "docs" / "how-to" / "run-on-lambda.md"
TOOLS = ("cfn-lint==1.58.0", "aws-sam-translator==1.115.0", "python-hcl2==8.1.4")

TRANSLATED = """
import json, os, sys
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

template = yaml_parse(open(sys.argv[1]).read())
for resource in template["Resources"].values():
    if "CodeUri" in resource["Properties"]:
        resource["Properties"]["CodeUri"] = "s3://artifacts/it.zip"  # `sam deploy` uploads it first
os.environ["AWS_DEFAULT_REGION"] = "eu-central-1"
made = transform(template, {}, None)
json.dump(made, open(sys.argv[2], "w"))
"""
PARSED = """
import hcl2, json, sys

plain = hcl2.SerializationOptions(strip_string_quotes=True, explicit_blocks=False)
json.dump(hcl2.load(open(sys.argv[1]), serialization_options=plain), sys.stdout)
"""

pytestmark = pytest.mark.ministack


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of commands, in a venv of its own: they are of no use to anybody else."""
    folder = tmp_path_factory.mktemp("templates")
    run(uv_binary(), "venv", "-q", "--python", sys.executable, folder)
    run(uv_binary(), "pip", "install", "-q", "--python", folder / "bin/python", *TOOLS)
    return folder / "bin"


def translated(tools: Path, template: str, into: Path) -> dict[str, Any]:
    """What AWS makes of a SAM template."""
    source = into.with_suffix(".yaml")
    source.write_text(template)
    run(tools / "python", "-c", TRANSLATED, source, into)
    return dict(json.loads(into.read_text())["Resources"])


def parsed(tools: Path, file: Path) -> dict[str, dict[str, Any]]:
    """The blocks of resources in a Terraform file, by type and name."""
    blocks = json.loads(run(tools / "python", "-c", PARSED, file).stdout)["resource"]
    return {f"{kind}.{name}": body for block in blocks for kind, one in block.items() for name, body in one.items()}


def lint(tools: Path, template: Path, *, ok: bool = True) -> str:
    return str(run(tools / "cfn-lint", "--regions", "eu-central-1", "--", template, ok=ok).stdout)


def test_the_sam_template_is_one_before_and_after_it_is_translated(tools: Path, tmp_path: Path) -> None:
    text, made = (PROJECT / "template.yaml").read_text(), tmp_path / "made.json"
    lint(tools, PROJECT / "template.yaml")
    resources = translated(tools, text, made)
    lint(tools, made)
    assert resources["Pseudonyms"]["Type"] == "AWS::Lambda::Function"
    # It would find what is wrong: a name of nothing, a setting of nothing.
    translated(tools, text.replace("!Ref Pepper", "!Ref Paper"), made)
    assert "Paper" in lint(tools, made, ok=False)
    (tmp_path / "wrong.yaml").write_text(text.replace("MemorySize", "MemorySise"))
    assert "MemorySise" in lint(tools, tmp_path / "wrong.yaml", ok=False)


def test_the_terraform_file_names_what_it_has_and_what_the_example_is(tools: Path) -> None:
    text = (PROJECT / "main.tf").read_text()
    blocks = parsed(tools, PROJECT / "main.tf")
    used = set(re.findall(r"\b(aws_\w+\.\w+)\.\w+", text))
    assert {"aws_iam_role.worker", "aws_s3_bucket.tasks", "aws_secretsmanager_secret.pepper"} == used
    assert used <= blocks.keys()
    function = blocks["aws_lambda_function.pseudonyms"]
    assert function["filename"] == "dist/lambda_project-0.zip"  # what `flujo lambda build .` writes, see Artifact.write
    assert function["source_code_hash"] == '${filebase64sha256("dist/lambda_project-0.zip")}'
    assert "GetSecretValue" in text
    assert blocks["aws_secretsmanager_secret.pepper"]["name"] == "pseudonyms/PSEUDONYM_PEPPER"


def test_both_deploy_the_same_function(tools: Path, tmp_path: Path) -> None:
    terraform = parsed(tools, PROJECT / "main.tf")["aws_lambda_function.pseudonyms"]
    sam = translated(tools, (PROJECT / "template.yaml").read_text(), tmp_path / "made.json")["Pseudonyms"]["Properties"]
    pairs = {
        "function_name": "FunctionName", "handler": "Handler", "runtime": "Runtime", "memory_size": "MemorySize",
        "timeout": "Timeout", "reserved_concurrent_executions": "ReservedConcurrentExecutions",
    }  # fmt: skip
    assert {one: terraform[one] for one in pairs} == {one: sam[other] for one, other in pairs.items()}
    assert terraform["handler"] == worker.HANDLER
    [environment] = terraform["environment"]
    variables = sam["Environment"]["Variables"]
    assert environment["variables"].keys() == variables.keys()
    page = (ROOT / "docs" / "reference" / "lambda.md").read_text()
    assert all(f"`{name}`" in page for name in variables)
    assert environment["variables"]["FLUJO_LAMBDA_SECRETS"] == variables["FLUJO_LAMBDA_SECRETS"] == "pseudonyms/"


def test_the_templates_of_the_guide_are_some(tools: Path, tmp_path: Path) -> None:
    text = GUIDE.read_text()
    [terraform] = re.findall(r"```hcl\n(.*?)```", text, re.S)
    [sam] = re.findall(r"```yaml\n(.*?)```", text, re.S)
    (tmp_path / "guide.tf").write_text(terraform)
    assert parsed(tools, tmp_path / "guide.tf")["aws_lambda_function.words"]["handler"] == worker.HANDLER
    around = "Transform: AWS::Serverless-2016-10-31\nParameters: {PublicKey: {Type: String}}\nResources:\n"
    bucket = "  Tasks: {Type: AWS::S3::Bucket, Properties: {}}\n"
    inner = "".join(f"  {line}\n" for line in sam.splitlines())
    made = tmp_path / "made.json"
    assert translated(tools, around + bucket + inner, made)["Words"]["Properties"]["Handler"] == worker.HANDLER
    lint(tools, made)
