"""
An mTLS gate for Twisted: verified TLS clients, and no others, reach the
protocol behind it.
"""
