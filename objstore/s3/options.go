package s3

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/shardpress/shardpress/objstore"
)

const (
	mib = 1 << 20
	// minPart and maxPart are S3's limits for a part that is not the last.
	minPart = 5 * mib
	maxPart = 5 << 30
	// maxParts is S3's limit for one upload.
	maxParts = 10000

	amazon        = "https://s3.amazonaws.com"
	defaultRegion = "us-east-1"
)

// Options say where a store is and how to talk to it. Only URL is needed.
type Options struct {
	// URL is s3://bucket or s3://bucket/prefix.
	URL string
	// Endpoint is the server's URL, http:// or https://. Empty: AWS_ENDPOINT_URL_S3,
	// AWS_ENDPOINT_URL, or Amazon's.
	Endpoint string
	// Region. Empty: AWS_REGION or AWS_DEFAULT_REGION; else Amazon is asked for the
	// bucket's, and others are told us-east-1, which most take.
	Region string
	// CAFile has certificates in PEM, trusted besides the system's. Empty: AWS_CA_BUNDLE.
	CAFile string
	// Credentials. Nil: the environment (AWS_ACCESS_KEY_ID...), the shared files
	// (AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE), the role of the machine,
	// container or service account.
	Credentials *Credentials

	// PartSize is how many bytes go in one request (16 MiB, if 0): larger objects are
	// uploaded in parts. The greatest object is 10,000 parts; an object whose size
	// is known gets larger parts if it needs them.
	PartSize int64
	// UploadThreads is how many parts of one object are on their way at once (4).
	// An upload holds at most so many parts in memory.
	UploadThreads int
	// UploadMemory bounds the parts that all uploads of this Bucket together hold beyond
	// one each (256 MiB).
	UploadMemory int64
	// MaxConcurrency is how many requests are open at once (64). A server that asks
	// to slow down gets fewer for a while.
	MaxConcurrency int
	// Retries is how often a request is repeated that failed for a reason that may pass
	// (6, if 0, which takes some seconds; none, if negative), and how often a read is
	// resumed without getting further.
	Retries int
	// Stall is how long a connection may be silent in the middle of a body (60 s), and
	// Answer how long a server may take to begin an answer (2 min).
	Stall, Answer time.Duration
	// CheckConflicts makes this package look for objects above and below the key before
	// each Put and Copy, which costs a request for each slash of the key, and one
	// more. Gateways to file systems refuse such keys themselves; for S3 it is for
	// tests.
	CheckConflicts bool
	// Transport, if not nil, wraps what sends requests: for tracing. It sees
	// signatures; it must not log headers.
	Transport func(http.RoundTripper) http.RoundTripper
}

// complete fills in defaults and checks the rest.
func (o Options) complete() (Options, error) {
	o.Endpoint = cmp.Or(o.Endpoint, os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"), amazon)
	o.Region = cmp.Or(o.Region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
	o.CAFile = cmp.Or(o.CAFile, os.Getenv("AWS_CA_BUNDLE"))
	o.PartSize = cmp.Or(o.PartSize, 16*mib)
	o.UploadThreads = cmp.Or(o.UploadThreads, 4)
	o.UploadMemory = cmp.Or(o.UploadMemory, 256*mib)
	o.MaxConcurrency = cmp.Or(o.MaxConcurrency, 64)
	o.Retries = max(0, cmp.Or(o.Retries, 6))
	o.Stall = cmp.Or(o.Stall, time.Minute)
	o.Answer = cmp.Or(o.Answer, 2*time.Minute)
	if endpoint, err := parseEndpoint(o.Endpoint); err == nil && o.Region == "" && !isAmazon(endpoint) {
		o.Region = defaultRegion
	}
	switch {
	case o.PartSize < minPart || o.PartSize > maxPart:
		return o, fmt.Errorf("part size of %d bytes: S3 takes %d to %d", o.PartSize, minPart, int64(maxPart))
	case o.UploadThreads < 1 || o.UploadThreads > 1000:
		return o, fmt.Errorf("%d upload threads: 1 to 1000 make sense", o.UploadThreads)
	case o.MaxConcurrency < 1 || o.MaxConcurrency > 100_000:
		return o, fmt.Errorf("%d requests at once: 1 to 100000 make sense", o.MaxConcurrency)
	case o.UploadMemory < 0 || o.Stall < 0 || o.Answer < 0:
		return o, errors.New("upload memory and times must not be negative")
	}
	return o, nil
}

// Check reports what is wrong with the options themselves, with what the environment
// gives for those that are not set. It asks no server.
func (o Options) Check() error {
	if _, _, err := ParseURL(o.URL); err != nil {
		return err
	}
	o, err := o.complete()
	if err == nil {
		_, err = parseEndpoint(o.Endpoint)
	}
	return err
}

// wrap lets the hook have the transport.
func (o Options) wrap(t http.RoundTripper) http.RoundTripper {
	if o.Transport == nil {
		return t
	}
	return o.Transport(t)
}

// bucketName is the form of the names that every server takes.
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// ParseURL takes s3://bucket/prefix apart. What stands behind the bucket is taken
// as it is, without escapes, and must be a valid key or nothing; one slash at the
// end means nothing.
func ParseURL(s string) (bucket, prefix string, err error) {
	rest, ok := strings.CutPrefix(s, "s3://")
	if !ok {
		return "", "", fmt.Errorf("store URL %q: want s3://bucket/prefix", clip(withoutUser(s)))
	}
	bucket, prefix, _ = strings.Cut(rest, "/")
	if strings.ContainsAny(bucket, "@:") {
		// Not shown: somebody may have put credentials there.
		return "", "", errors.New("store URL: a bucket has no user, password or port: want s3://bucket/prefix, and credentials in the environment")
	}
	if !bucketName.MatchString(bucket) || strings.Contains(bucket, "..") {
		return "", "", fmt.Errorf("store URL %q: %q is no name of a bucket: 3 to 63 lower-case letters, digits, dots and hyphens", clip(s), clip(bucket))
	}
	prefix = strings.TrimSuffix(prefix, "/")
	if prefix != "" {
		if err := objstore.CheckKey(prefix); err != nil {
			return "", "", fmt.Errorf("store URL: prefix: %w", err)
		}
	}
	return bucket, prefix, nil
}

// withoutUser removes what stands before an @, where credentials would be.
func withoutUser(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return "..." + s[i:]
	}
	return s
}

func clip(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// parseEndpoint checks the server's URL.
func parseEndpoint(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("S3 endpoint %q: want http://host:port or https://host", clip(withoutUser(s)))
	}
	if u.User != nil {
		return nil, fmt.Errorf("S3 endpoint %s: credentials do not belong into it: put them into the environment", u.Host)
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("S3 endpoint %s: no path may follow the host: the bucket stands in the store's URL", u.Host)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

func isAmazon(endpoint *url.URL) bool {
	host := endpoint.Hostname()
	return strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn")
}
