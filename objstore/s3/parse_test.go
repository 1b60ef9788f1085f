package s3

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ url, bucket, prefix string }{
		{"s3://abc", "abc", ""},
		{"s3://abc/", "abc", ""},
		{"s3://my-bucket.x/some/prefix", "my-bucket.x", "some/prefix"},
		{"s3://my-bucket/some/prefix/", "my-bucket", "some/prefix"},
		{"s3://abc/with space?&#%20", "abc", "with space?&#%20"},
		{"", "", ""},
		{"abc", "", ""},
		{"S3://abc", "", ""},
		{"http://abc/x", "", ""},
		{"s3://", "", ""},
		{"s3:///x", "", ""},
		{"s3://ab", "", ""},
		{"s3://Abc/x", "", ""},
		{"s3://a..b/x", "", ""},
		{"s3://-ab/x", "", ""},
		{"s3://abc//x", "", ""},
		{"s3://abc/../x", "", ""},
		{"s3://abc/.x", "", ""},
		{"s3://abc/x//", "", ""},
		{"s3://key:topsecret@abc/x", "", ""},
		{"https://key:topsecret@host/abc", "", ""},
		{"s3://topsecret@abc", "", ""},
		{"s3://abc:9000/x", "", ""},
		{"s3://" + strings.Repeat("a", 64), "", ""},
	} {
		bucket, prefix, err := ParseURL(test.url)
		if bucket != test.bucket || prefix != test.prefix || (err == nil) != (test.bucket != "") {
			t.Errorf("ParseURL(%q): %q, %q, %v", test.url, bucket, prefix, err)
		}
		if err != nil && strings.Contains(err.Error(), "topsecret") {
			t.Errorf("ParseURL(%q) shows credentials: %v", test.url, err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"s3://abc/def", "s3://abc", "s3://", "s3://a@b/c", "s3://abc/\x00", "s3://abc/" + strings.Repeat("x/", 600)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		bucket, prefix, err := ParseURL(s)
		if err != nil {
			if len(err.Error()) > 2000 || strings.ContainsAny(err.Error(), "\x00\n\x1b") {
				t.Fatalf("%q: error carries the URL raw: %q", s, err)
			}
			return
		}
		again, p, err := ParseURL("s3://" + bucket + "/" + prefix)
		if err != nil || again != bucket || p != prefix || strings.ContainsAny(bucket, "/@: ") {
			t.Fatalf("%q: %q, %q", s, bucket, prefix)
		}
	})
}

func TestParseEndpoint(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		endpoint string
		ok       bool
	}{
		{"https://s3.amazonaws.com", true},
		{"http://127.0.0.1:7070/", true},
		{"https://[::1]:7070", true},
		{"s3.example.org", false},
		{"127.0.0.1:7070", false},
		{"ftp://x", false},
		{"http://", false},
		{"http://host/path", false},
		{"http://host?x", false},
		{"http://key:topsecret@host", false},
		{"http://key:topsecret@ho st", false},
		{"key:topsecret@host", false},
	} {
		u, err := parseEndpoint(test.endpoint)
		if (err == nil) != test.ok {
			t.Errorf("%q: %v, %v", test.endpoint, u, err)
		}
		if err != nil && strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%q: shows credentials: %v", test.endpoint, err)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-5/10", "bytes */10", "bytes 0-9/*", "bytes 9-0/10", "bytes 0-10/10", "bytes +1-2/9", "bytes 0-99999999999999999999/1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, ok := parseContentRange(s)
		if ok && (first < 0 || last < first || total <= last) {
			t.Fatalf("%q: %d-%d/%d", s, first, last, total)
		}
		if ok && fmt.Sprintf("bytes %d-%d/%d", first, last, total) != s && !strings.Contains(s, "0") {
			t.Fatalf("%q is taken for %d-%d/%d", s, first, last, total)
		}
	})
}

func TestByteRange(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		off, n int64
		want   string
	}{
		{0, 1, "bytes=0-0"},
		{5, 10, "bytes=5-14"},
		{5, -1, "bytes=5-"},
		{1, 1<<63 - 1, "bytes=1-9223372036854775807"},
		{2, 1<<63 - 1, "bytes=2-"},
	} {
		if got := byteRange(test.off, test.n); got != test.want {
			t.Errorf("byteRange(%d, %d) is %q, want %q", test.off, test.n, got, test.want)
		}
	}
}

func TestCredentialsDoNotPrint(t *testing.T) {
	t.Parallel()
	c := Credentials{AccessKeyID: "AKtopsecret", SecretAccessKey: "topsecret", SessionToken: "topsecret2"}
	o := Options{Credentials: &c}
	text := fmt.Sprintf("%v %+v %#v %s %q %x %d|%v %+v %#v", c, c, c, c, c, c, c, &c, o, o.Credentials)
	j, err := json.Marshal(map[string]any{"a": c, "b": &c})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", c, "p", &c, "o", o)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "c", c, "p", &c)
	for _, s := range []string{text, string(j), log.String()} {
		if strings.Contains(s, "topsecret") || strings.Contains(s, fmt.Sprintf("%x", "topsecret")) {
			t.Errorf("credentials in %s", s)
		}
	}
}

func TestScrub(t *testing.T) {
	t.Parallel()
	s := &secrets{known: []string{"SECRETKEY", "TOKEN"}}
	for _, test := range []struct{ in, want string }{
		{"nothing here", "nothing here"},
		{"the key SECRETKEY is wrong", "the key [removed] is wrong"},
		{"Authorization: AWS4-HMAC-SHA256 Credential=AKIA/2026/us/s3, SignedHeaders=host, Signature=abc123", "Authorization: [removed] Credential=[removed], SignedHeaders=host, Signature=[removed]"},
		{`{"X-Amz-Security-Token": "abc", "x":1}`, `{"X-Amz-Security-Token": "[removed]", "x":1}`},
		{"http://x/?X-Amz-Signature=abc&y=TOKEN", "http://x/?X-Amz-Signature=[removed]&y=[removed]"},
	} {
		if got := s.scrub(test.in); got != test.want {
			t.Errorf("scrub(%q)\ngives %q\nwants %q", test.in, got, test.want)
		}
	}
}

func TestSkew(t *testing.T) {
	t.Parallel()
	if s := skew(time.Now().Add(time.Hour)); !strings.Contains(s, "behind") {
		t.Error(s)
	}
	if s := skew(time.Now().Add(-time.Hour)); !strings.Contains(s, "ahead") {
		t.Error(s)
	}
	if s := skew(time.Time{}); !strings.Contains(s, "NTP") {
		t.Error(s)
	}
}
