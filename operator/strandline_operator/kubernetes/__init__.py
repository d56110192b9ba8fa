"""What a Cluster consists of in Kubernetes, and how it gets there.

Pure builders of its objects, one module per kind, put together by `children`; the pure comparison with what is there
(`plan`); the client that applies the result. Builders are deterministic: the same Cluster, settings and observation give
the same objects, byte for byte.
"""
