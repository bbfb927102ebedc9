"""Whether the OpenAPI document of today keeps what the one of the last release promised. Written for this repository, because
the tools that are known for it either cannot be had from a package registry or do not read OpenAPI 3.1."""
