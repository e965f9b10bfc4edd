# Copy this to /etc/mtlsgate/gate.hcl, with your certificates beside it; then
#
#   mtlsgate check --config /etc/mtlsgate/gate.hcl
#
# says what it does.

settings {
  watch         = true
  drain_timeout = "30s"
}

# For "mtlsgate ctl status --config /etc/mtlsgate/gate.hcl".
admin {
  listen = "unix:/run/mtlsgate/gate.sock"
}

server "gate" {
  hosts = ["*:8443"]

  protocol "proxy" {
    target = "127.0.0.1:6379"
  }

  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }

    client_certificate "clients" {
      ca_certificate_file = "ca.crt"
    }
  }
}
