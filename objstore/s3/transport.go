package s3

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

const (
	dialTimeout = 10 * time.Second
	keepAlive   = 15 * time.Second
	idleTimeout = 60 * time.Second
	wireBuffer  = 64 << 10
)

// baseTransport makes the connections.
func baseTransport(o Options) (*http.Transport, error) {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: o.Answer,
		IdleConnTimeout:       idleTimeout,
		MaxIdleConns:          o.MaxConcurrency,
		MaxIdleConnsPerHost:   o.MaxConcurrency,
		DisableCompression:    true, // or a body's length would not be its Content-Length
		ReadBufferSize:        wireBuffer,
		WriteBufferSize:       wireBuffer,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
	}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &impatient{Conn: c, stall: o.Stall}, nil
	}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read certificates: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read certificates: %s holds none in PEM", o.CAFile)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return t, nil
}

// impatient is a connection whose writes fail if they get nowhere for a while. Reads
// need no such bound here: a connection may wait long for its next request.
type impatient struct {
	net.Conn
	stall time.Duration
}

func (c *impatient) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// exchange is what is remembered of the last request of an operation, and minio-go
// does not tell.
type exchange struct {
	status     int           // 0: there was no answer
	date       time.Time     // by the server's clock; zero if it did not say
	retryAfter time.Duration // that the server asked for
	refusal    refusal       // of a status that is an error
	err        error         // why there was no answer

	// cancel ends the operation's context. It is called when a request failed for a reason
	// that may pass, because minio-go then waits before it gives up.
	cancel context.CancelFunc
	keep   bool // the context lives on, with the body of an answer
}

// refusal is the document that S3 sends with an error.
type refusal struct {
	Code, Message, Region string
}

// maxRefusal bounds it.
const maxRefusal = 64 << 10

type exchangeKey struct{}

func withExchange(ctx context.Context, x *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

// recorder sends requests when it is their turn, and remembers the answers.
type recorder struct {
	next  http.RoundTripper
	limit *limiter
}

// RoundTrip sends one request. Its turn ends with the head of the answer: whoever
// reads a body may have to send another request before it can go on reading.
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	epoch, err := r.limit.acquire(req.Context())
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	resp, err := r.next.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusOK && req.URL.Query().Has("list-type") {
		if err = checkListing(resp); err != nil {
			resp = nil
		}
	}
	slow := err == nil && (resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusTooManyRequests)
	r.limit.release(epoch, err == nil && resp.StatusCode < http.StatusInternalServerError, slow)
	if x, ok := req.Context().Value(exchangeKey{}).(*exchange); ok {
		x.record(resp, err)
	}
	return resp, err
}

// checkListing looks whether the answer to a listing is one. minio-go takes any
// document for a listing, without objects: the page of a proxy that wants a password
// would look like a store that has lost everything.
func checkListing(resp *http.Response) error {
	r := bufio.NewReaderSize(resp.Body, 1<<10)
	if begin, _ := r.Peek(1 << 10); !bytes.Contains(begin, []byte("<ListBucketResult")) { // most are shorter
		resp.Body.Close()
		return &failure{message: "the answer to a listing is none: is this an S3 endpoint?"}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{r, resp.Body}
	return nil
}

// record remembers an answer. It replaces the body of an error by what it has read of it.
func (x *exchange) record(resp *http.Response, err error) {
	*x = exchange{err: err, cancel: x.cancel}
	if err != nil {
		x.cancel()
		return
	}
	x.status = resp.StatusCode
	x.date, _ = http.ParseTime(resp.Header.Get("Date")) // zero says that there is none
	x.retryAfter = retryAfter(resp.Header.Get("Retry-After"))
	if x.status < http.StatusBadRequest {
		return
	}
	doc, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // the status says enough
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(doc))
	if err := xml.Unmarshal(doc, &x.refusal); err != nil {
		x.refusal = refusal{}
	}
	if x.refusal.Region == "" {
		x.refusal.Region = resp.Header.Get("X-Amz-Bucket-Region")
	}
	if passing(x.status, x.refusal.Code) {
		x.cancel()
	}
}

// maxRetryAfter bounds what a server can make us wait.
const maxRetryAfter = 20 * time.Second

// retryAfter reads the header's form in seconds; the form with a date would depend
// on two clocks.
func retryAfter(s string) time.Duration {
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 {
		return 0
	}
	return min(time.Duration(min(n, 1000))*time.Second, maxRetryAfter)
}

// hopeless says that a connection will not come about by trying again.
func hopeless(err error) bool {
	var (
		authority  x509.UnknownAuthorityError
		host       x509.HostnameError
		invalid    x509.CertificateInvalidError
		verify     *tls.CertificateVerificationError
		notTLS     tls.RecordHeaderError
		unknownDNS *net.DNSError
	)
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &verify) || errors.As(err, &notTLS) ||
		errors.As(err, &unknownDNS) && unknownDNS.IsNotFound
}
