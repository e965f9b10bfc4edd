server "greeter" {
  hosts = ["localhost:8443"]

  protocol "http" {
    target       = "127.0.0.1:50051"
    http_version = "2"
    headers {
      X-Client-CN = peer.common_name
    }
    # Streams may be silent for so long.
    response_timeout = "1h"
    body_timeout     = "1h"
  }

  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }
    client_certificate "people" {
      ca_certificate_file = "client-ca.crt"
    }
  }
}
