server "chat" {
  hosts = ["localhost:8443"]

  protocol "custom" {
    factory  = "chat:ChatFactory"
    greeting = "Welcome"
  }

  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }

    # Everyone whose certificate our CA issued.
    client_certificate "members" {
      ca_certificate_file = "ca.crt"
    }
  }
}
