# No server certificate: a self-signed one is made.
server {
  hosts = ["localhost:0"]
  tls {
    client_certificate {
      ca_certificate_file = "couperIntermediate.crt"
    }
  }
}
