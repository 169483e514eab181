"""The Jupyter face: the kernel that attests itself, and the provisioner that verifies it first.

========================  ====================================================================
where it runs             modules
========================  ====================================================================
in the enclave            `kernelapp` (starts the kernel), `kernel`, `liveness`, `magics`
on the user's side        `provisioner` (starts, verifies, connects), `client`, `kernelspec`
both ends                 `handshake` (what is said), `curve` (how it is encrypted),
                          `brokerchannel` (how keys get from one to the other)
========================  ====================================================================
"""
