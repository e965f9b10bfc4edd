# Values out of the environment, as containers have them.
server "environment" {
  hosts = [default(env.COUPER_HOST, "127.0.0.1:0")]

  tls {
    server_certificate {
      public_key             = env.SERVER_CERTIFICATE
      private_key            = env["SERVER_KEY"]
      private_key_passphrase = default(env.SERVER_KEY_PASSPHRASE, null)
    }
    client_certificate "file" {
      ca_certificate = file("couperIntermediate.crt")
    }
    client_certificate "environment" {
      leaf_certificate_file = "${env.CLIENT}.crt"
    }
  }
}
