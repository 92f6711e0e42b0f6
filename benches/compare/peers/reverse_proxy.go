// The reverse proxy of Go's standard library, with a header attached to every request.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

func main() {
	upstream, err := url.Parse(os.Getenv("UPSTREAM"))
	if err != nil {
		log.Fatal(err)
	}
	pem, err := os.ReadFile(os.Getenv("CA_FILE"))
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)

	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.DisableCompression = true
	// the default of two idle connections would make most requests open one of their own
	transport.MaxIdleConns = 0
	transport.MaxIdleConnsPerHost = 16384
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	protocols := new(http.Protocols)
	if os.Getenv("HTTP2") == "true" {
		protocols.SetHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
	}
	transport.Protocols = protocols

	authorization := "Bearer " + os.Getenv("TOKEN")
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Host = upstream.Hostname()
			r.Out.Header.Set("Authorization", authorization)
		},
		Transport: transport,
	}
	log.Fatal(http.ListenAndServe(os.Getenv("LISTEN"), proxy))
}
