#!/usr/bin/env python3
"""Checks what `spdflow export` writes with the libraries and validators that others use for these forms.

    pip install in-toto-attestation==0.9.3 prov==3.2.3 roc-validator==0.13.0
    spdflow export tms --format slsa -o tms.slsa
    spdflow export tms --format prov -o tms.prov
    spdflow export tms --format ro-crate -o tms.ro-crate
    python tests/python/check_exports.py tms.slsa tms.prov tms.ro-crate

Statements must be in-toto statements with SLSA provenance and no unknown field, and name each file of the crate with
its SHA-256; PROV must be read and written without loss, each relation between things that are there, each entity made
once, and nothing made from itself; the crate must have no issue with any profile it names, up to those that are
recommended but for the few below. Needs no network: the two contexts of crates are served from here.

Prints one line per form; exits with 1 after the first that is not right.
"""

import hashlib
import json
import logging
import sys
from pathlib import Path
from urllib.parse import unquote

from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from prov.model import ProvDocument
from rocrate_validator import services
from rocrate_validator.models import Severity
from rocrate_validator.utils import document_loader
from rocrate_validator.utils.http import HttpRequester

# Terms of crates that are not schema.org's own, by https://w3id.org/ro/crate/1.1/context and
# https://w3id.org/ro/terms/workflow-run/context.
OTHER_TERMS = {
    "File": "http://schema.org/MediaObject",
    "conformsTo": "http://purl.org/dc/terms/conformsTo",
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "FormalParameter": "https://bioschemas.org/FormalParameter",
    "input": "https://bioschemas.org/ComputationalWorkflow#input",
    "output": "https://bioschemas.org/ComputationalWorkflow#output",
    "sha256": "https://w3id.org/ro/terms/workflow-run#sha256",
}
# Terms of schema.org that crates of spdflow use.
SCHEMA_TERMS = """
    ComputerLanguage ControlAction CreateAction CreativeWork Dataset HowTo HowToStep OrganizeAction PropertyValue
    SoftwareApplication SoftwareSourceCode about actionStatus additionalType contentSize datePublished description
    encodingFormat endTime exampleOfWork hasPart identifier instrument isBasedOn license mainEntity mentions name object
    position programmingLanguage result softwareVersion startTime step url value version workExample
""".split()
CONTEXT = {"@context": {**{term: f"http://schema.org/{term}" for term in SCHEMA_TERMS}, **OTHER_TERMS}}

PROFILES = ["ro-crate-1.1", "process-run-crate-0.5", "workflow-run-crate-0.5", "provenance-run-crate-0.5"]

# What is recommended and not known: whose the results are, and how somebody is reached who did the work.
NOT_SAID = [
    "the `author` of the RO-Crate",
    "The `publisher` property",
    "an agent that is a Person or Organization",
    "The Application SHOULD have a url",
    "The SoftwareApplication id SHOULD be an absolute URI",  # it takes http(s) only, and a urn is one as well
]


class Wrong(Exception):
    """Something in an export is not as it should be."""


def expect(condition, message):
    if not condition:
        raise Wrong(message)


def check_slsa(path):
    """Returns the SHA-256 of every file that a statement is about, by its name."""
    files = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        document = json.loads(line)
        statement = ParseDict(document, statement_pb2.Statement())
        Statement.copy_from_pb(statement).validate()
        expect(statement.predicate_type == "https://slsa.dev/provenance/v1", f"line {number}: another predicate")
        provenance = ParseDict(document["predicate"], provenance_pb2.Provenance())
        definition, details = provenance.build_definition, provenance.run_details
        expect(definition.build_type.startswith("urn:spdflow:stage:"), f"line {number}: another build type")
        expect(len(definition.external_parameters) > 0, f"line {number}: no parameters")
        expect(details.builder.id and details.metadata.invocation_id, f"line {number}: no builder or no run")
        started, finished = details.metadata.started_on, details.metadata.finished_on
        expect(0 < started.seconds <= finished.seconds, f"line {number}: times {started}, {finished}")
        for resource in [*statement.subject, *definition.resolved_dependencies]:
            sha256 = resource.digest["sha256"]
            expect(len(sha256) == 64 and resource.name, f"line {number}: {resource}")
        for subject in statement.subject:
            files[subject.name] = subject.digest["sha256"]
    expect(files, "no statement")
    return files


def check_prov(path):
    """Returns how many entities there are."""
    text = path.read_text(encoding="utf-8")
    document = ProvDocument.deserialize(content=text, format="json")
    again = ProvDocument.deserialize(content=document.serialize(format="json"), format="json")
    expect(document == again, "PROV is not the same after it was read and written")
    parts = json.loads(text)
    things = {name for kind in ["entity", "activity", "agent"] for name in parts.get(kind, {})}
    ends = {
        "wasGeneratedBy": ["prov:entity", "prov:activity"],
        "used": ["prov:activity", "prov:entity"],
        "wasAssociatedWith": ["prov:activity", "prov:agent", "prov:plan"],
        "wasDerivedFrom": ["prov:generatedEntity", "prov:usedEntity", "prov:activity"],
        "hadMember": ["prov:collection", "prov:entity"],
    }
    for kind, roles in ends.items():
        for name, relation in parts.get(kind, {}).items():
            for role in roles:
                expect(relation[role] in things, f"{kind} {name}: `{relation[role]}` is nowhere described")
    made = [relation["prov:entity"] for relation in parts["wasGeneratedBy"].values()]
    expect(len(made) == len(set(made)), "an entity is generated twice")
    sources = {}
    for relation in parts.get("wasDerivedFrom", {}).values():
        sources.setdefault(relation["prov:generatedEntity"], []).append(relation["prov:usedEntity"])

    def visit(entity, above):
        expect(entity not in above, f"`{entity}` is derived from itself")
        for source in sources.get(entity, []):
            visit(source, above | {entity})

    for entity in sources:
        visit(entity, frozenset())
    return len(parts["entity"])


class Served:
    """An answer from here instead of the network."""

    status_code, ok, headers = 200, True, {"Content-Type": "application/ld+json"}
    text, content = json.dumps(CONTEXT), json.dumps(CONTEXT).encode()

    def json(self):
        return CONTEXT

    def raise_for_status(self):
        pass


def serve_contexts():
    """Makes the validator take the contexts from here, and nothing from the network."""

    def get(_, address, *arguments, **options):
        known = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
        expect(address in known, f"the crate wants `{address}`")
        return Served()

    HttpRequester.get = HttpRequester.head = get
    document_loader.install_document_loader()


def check_crate(folder, files):
    """Returns how many entities the crate describes."""
    graph = json.loads((folder / "ro-crate-metadata.json").read_text(encoding="utf-8"))["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    expect(len(entities) == len(graph), "an entity is described twice")
    for entity in graph:
        types = entity["@type"] if isinstance(entity["@type"], list) else [entity["@type"]]
        for term in [*types, *(key for key in entity if not key.startswith("@"))]:
            expect(term in CONTEXT["@context"], f"`{entity['@id']}`: no context has the term `{term}`")
        for key, value in entity.items():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    known = item["@id"] in entities or item["@id"].startswith("https://")
                    expect(known, f"`{entity['@id']}`: `{key}` names `{item['@id']}`, which is nowhere described")
        if "File" in types:
            bytes_ = (folder / unquote(entity["@id"])).read_bytes()
            expect(hashlib.sha256(bytes_).hexdigest() == entity["sha256"], f"`{entity['@id']}`: another SHA-256")
            expect(str(len(bytes_)) == entity["contentSize"], f"`{entity['@id']}`: another size")
    in_crate = {entity["sha256"] for entity in graph if "sha256" in entity}
    expect(set(files.values()) <= in_crate, "a file of a statement is not in the crate")
    for profile in PROFILES:
        settings = services.ValidationSettings(
            rocrate_uri=str(folder), profile_identifier=profile, requirement_severity=Severity.RECOMMENDED,
            enable_profile_inheritance=True)
        result = services.validate(settings)
        issues = [f"{issue.check.identifier} ({issue.severity.name}): {issue.message}" for issue in result.get_issues()]
        unexpected = [issue for issue in issues if not any(known in issue for known in NOT_SAID)]
        expect(not unexpected, f"{profile}:\n  " + "\n  ".join(unexpected))
    return len(graph)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    logging.disable(logging.WARNING)
    slsa, prov, crate = map(Path, sys.argv[1:])
    try:
        files = check_slsa(slsa)
        print(f"slsa: statements about {len(files)} files")
        print(f"prov: {check_prov(prov)} entities")
        serve_contexts()
        print(f"ro-crate: {check_crate(crate, files)} entities")
    except Wrong as wrong:
        sys.exit(f"error: {wrong}")


main()
