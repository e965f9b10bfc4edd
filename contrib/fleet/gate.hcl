# One gate of a fleet. All gates have this file; what differs is in the environment:
#
#   GATE           its name, which is also that of its certificate
#   GATE_SOCKET    its admin socket
#   GATE_HOST      where it listens for devices, as "10.0.0.5:8443"
#   GATE_READY     where it answers to HAProxy's checks and to Prometheus
#   GATE_BALANCER  from where HAProxy comes, as "10.0.0.2" or "10.0.0.0/24"
#   GATE_REGISTRY  the store of devices, as "redis+sentinel://10.0.0.31,10.0.0.32/devices"

settings {
  # A gate that knows nobody yet, because the store is away, gets nobody.
  readiness = "registries"

  # A new process takes the addresses over; the old one ends with its connections.
  takeover      = true
  drain_timeout = "1m"
}

admin {
  listen = "unix:${env.GATE_SOCKET}"
}

# Who may come in, for all gates. Without the store those come in who were known before.
registry "devices" {
  url           = env.GATE_REGISTRY
  on_outage     = "last_known"
  max_staleness = "5m"
}

# Requests: it answers who one is.
server "devices" {
  hosts           = [env.GATE_HOST]
  server_names    = ["localhost"]
  proxy_protocol  = "required"
  trusted_proxies = [env.GATE_BALANCER]

  protocol "whoami" {}

  tls {
    server_certificate {
      public_key_file  = "${env.GATE}.crt"
      private_key_file = "${env.GATE}.key"
    }

    client_certificate "devices" {
      ca_certificate_file = "ca.crt"
      registry            = "devices"
    }
  }
}

# Connections that stay, on the same port: the name in the handshake decides.
server "streams" {
  hosts           = [env.GATE_HOST]
  server_names    = ["echo.localhost"]
  proxy_protocol  = "required"
  trusted_proxies = [env.GATE_BALANCER]

  protocol "echo" {}

  tls {
    server_certificate {
      public_key_file  = "${env.GATE}.crt"
      private_key_file = "${env.GATE}.key"
    }

    client_certificate "devices" {
      ca_certificate_file = "ca.crt"
      registry            = "devices"
    }
  }
}

# For HAProxy and Prometheus.
server "ready" {
  hosts = [env.GATE_READY]

  # HAProxy asks every second.
  log_admitted = false

  protocol "admin" {
    routes = ["/readyz", "/metrics"]
  }

  tls {
    server_certificate {
      public_key_file  = "${env.GATE}.crt"
      private_key_file = "${env.GATE}.key"
    }

    client_certificate "operations" {
      ca_certificate_file = "ca.crt"

      allow {
        common_names = ["haproxy", "prometheus"]
      }
    }
  }
}
