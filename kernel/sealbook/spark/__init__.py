"""Spark in which every node proved itself: what starts its JVMs, with which settings, and who they are.

A node is a small Python *agent*: measured as a kernel is, it makes its keys in memory, attests to
the brokers, and becomes the JVM by exec. What the JVM must know and nobody else may (keys, certificate, the
cluster's secret) goes through one pipe, its standard input; never through a file, an argument, an
environment variable or a Spark setting.

=================  ==================================================================================
``jdk``            which Java
``jvm``            the exact command line and environment of every JVM
``settings``       every Spark setting that protects something, with its reason; :func:`settings.require`
``profiles``       the clusters a user knows: ``clusters.toml``
``credentials``    what a node got from the brokers, as the frame its JVM reads
``node``           the agent
``executor``       the agent in the place of the ``java`` that a worker starts
``cluster``        a cluster of real processes on this machine: up, status, down
``foreground``     one node in the foreground, as containers start it
``kubernetes``     the same as manifests for Kubernetes
=================  ==================================================================================
"""
