# Labels, and several blocks of each kind.
server "multiple" {
  hosts = ["localhost:0"]

  tls {
    server_certificate "main" {
      public_key_file  = "couperServer.crt"
      private_key_file = "couperServer.key"
    }
    server_certificate "api.example.com" {
      public_key_file  = "other.crt"
      private_key_file = "other.key"
    }

    client_certificate "IOT" {
      ca_certificate_file   = "couperIntermediate.crt"
      leaf_certificate_file = "couperClient.crt"
    }
    client_certificate "Monitoring" {
      ca_certificate_file = "couperMonitoring.crt"
    }
    client_certificate "Admin" {
      leaf_certificate_file = "couperAdmin.crt"
    }
  }
}
