server "store" {
  hosts = ["localhost:8443"]

  protocol "keyvalue" {
    max_keys       = 3
    max_value_size = "64B"
    idle_timeout   = "1m"

    access {
      rule  = "machines"
      write = ["machine/"]
    }
    access {
      rule = "screens"
      read = ["machine/", "news/"]
    }
  }

  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }

    client_certificate "machines" {
      ca_certificate_file = "machines-ca.crt"
    }
    client_certificate "screens" {
      ca_certificate_file = "screens-ca.crt"
    }
  }
}
