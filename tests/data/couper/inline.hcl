# PEM written into the configuration, and DER in base64.
server "inline" {
  hosts = ["127.0.0.1:0"]

  tls {
    server_certificate "pem" {
      public_key = <<-EOF
        @couperServer.crt@
      EOF
      private_key = <<EOF
@couperServer.key@
EOF
    }
    server_certificate "der" {
      public_key  = "@other.crt|der@"
      private_key = "@other.key|der@"
    }

    client_certificate "pem" {
      ca_certificate = <<-EOF
        @couperIntermediate.crt@
        @couperMonitoring.crt@
      EOF
      leaf_certificate = <<EOF
@couperClient.crt@
EOF
    }
    client_certificate "der" {
      ca_certificate   = "@couperIntermediate.crt|der@"
      leaf_certificate = "@couperClient.crt|der@"
    }
  }
}
