# A gate in a container: mount this file, and what it names, at /etc/mtlsgate.

settings {
  # A changed file takes over by itself.
  watch = true

  # Less than the time that the engine waits after SIGTERM.
  drain_timeout = "8s"
}

# For the image's HEALTHCHECK, and for "podman exec gate mtlsgate ctl status".
admin {
  listen = "unix:/run/mtlsgate/gate.sock"
}

server "gate" {
  hosts = ["*:8443"]

  protocol "whoami" {}

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
