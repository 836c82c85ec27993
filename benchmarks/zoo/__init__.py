"""The conformance zoo: small nets of many architectures, converted to every target and compared by number."""
