server "orders" {
  hosts = ["127.0.0.1:8443"]

  protocol "web" {
    asgi = "orders:app"
  }

  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }

    client_certificate "customers" {
      ca_certificate_file = "ca.crt"
    }
  }
}
