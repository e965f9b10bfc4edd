# As in Couper's documentation: a server that asks for client certificates,
# everything in files beside the configuration.
server "couper" {
  hosts = ["*:0"]

  tls {
    server_certificate {
      public_key_file  = "couperServer.crt"
      private_key_file = "couperServer.key"
    }
    client_certificate {
      ca_certificate_file   = "couperIntermediate.crt"
      leaf_certificate_file = "couperClient.crt"
    }
  }
}
