"""The operator as a process in Kubernetes: what Kopf starts, and what runs for each Cluster.

`handlers` is all that knows Kopf. It starts one `operation` per Cluster: the controller, the loop that keeps the Cluster's
Kubernetes objects (`resources`), and the watch of its pods (`pods`).
"""
