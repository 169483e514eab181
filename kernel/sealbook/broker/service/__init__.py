"""The key broker as a network service: the same decisions behind HTTPS, for nodes that prove what they are.

- `service`: what a node can ask for, without HTTP; `clusters`: which policy admits a cluster's nodes;
- `database`, `nonces`, `sessions`: what a restart must not forget;
- `app`, `protocol`, `limits`, `server`: HTTP, TLS, and how much of either a stranger gets.

::

    GET  /v1/broker                                    {"v", "name"}
    POST /v1/challenge {}                              {"nonce"}
    POST /v1/attest    nonce role cluster evidence     {"result", "session", "expires", "certificate", "ca",
                       tls_key hpke_key hosts           "sealed"}: the cluster's secret
    with the node's certificate:
    POST /v1/renew     {}                              {"certificate", "expires"}
    POST /v1/release   key version purpose             {"key", "version", "sealed"}
    GET  /v1/keys                                      {"keys": [{"name", "guard", "version", "description"}]}
    GET  /v1/members                                   {"members": [{"session", "role", "expires"}]}
    GET  /v1/nodes                                     {"nodes": [{"session", "role", "expires", "hosts",
                                                       "label", "measurement"}]}: the same, for a person
    POST /v1/event     action facts                    {}

JSON both ways, bytes as base64, times as ISO 8601. A refusal is ``{"code", "error"}`` with one sentence; the
code is expired, unavailable, input, refused, busy or internal. Evidence binds role, audience (the broker's
name), nonce and exactly the claims tls_key, hpke_key, cluster, hosts (canonical JSON) and broker_key, the
SHA-256 of the public key of the broker's certificate on the very connection.
"""
