// Package s3test gives a test a real S3 server of its own: versitygw, pinned in
// tools/versitygw, as a process on a loopback port, with its objects in a
// temporary directory. It stands for the S3 servers that fleets use, and can be
// killed and started again.
//
// The server's program is built on first use (about a minute), and kept in the
// user's cache directory; SHARDPRESS_VERSITYGW names another one.
package s3test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shardpress/shardpress/objstore/s3"
)

const (
	region = "us-east-1"
	bucket = "test"
	// patience is how long the server may take to answer; what it needs is 0.2 s.
	patience = 60 * time.Second
	// pollEvery is the first pause between two questions whether it is up.
	pollEvery = 5 * time.Millisecond
	maxStarts = 5
)

// Server is a running S3 server with one bucket.
type Server struct {
	t       testing.TB
	binary  string
	dir     string
	sidecar string // where metadata go if files cannot hold them, else empty
	addr    string
	access  string
	secret  string
	stores  atomic.Int64

	mu     sync.Mutex
	proc   *exec.Cmd       // nil while it is down
	exited <-chan struct{} // closed when proc has ended
	log    lockedBuffer
}

// Start starts a server, which ends with the test, and makes its bucket.
func Start(t testing.TB) *Server {
	t.Helper()
	binary, err := program()
	if err != nil {
		t.Fatalf("s3test: %v", err)
	}
	dir := t.TempDir() // removed after the cleanup below
	s := &Server{t: t, binary: binary, dir: filepath.Join(dir, "objects"), access: "ACCESS" + rand.Text(), secret: "secret" + rand.Text()}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if !attributes(s.dir) {
		s.sidecar = filepath.Join(dir, "metadata")
		if err := os.Mkdir(s.sidecar, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			if text := s.log.String(); text != "" {
				t.Logf("the S3 server said:\n%s", text)
			}
		}
	})
	for try := 1; ; try++ {
		s.addr = freePort(t)
		err := s.start()
		if err == nil {
			break
		}
		if try == maxStarts { // the port may have gone to somebody else
			t.Fatalf("s3test: %v\n%s", err, s.log.String())
		}
	}
	if err := s3.CreateBucket(t.Context(), s.Options()); err != nil {
		t.Fatalf("s3test: %v", err)
	}
	return s
}

// Addr is the server's host and port.
func (s *Server) Addr() string { return s.addr }

// Endpoint is the server's URL.
func (s *Server) Endpoint() string { return "http://" + s.addr }

// Dir is the directory that holds the bucket's objects as files: to damage them
// behind the server's back.
func (s *Server) Dir() string { return filepath.Join(s.dir, bucket) }

// URL names a place in the bucket that no other call has named.
func (s *Server) URL() string { return fmt.Sprintf("s3://%s/store%d", bucket, s.stores.Add(1)) }

// Options open a place in the bucket that no other call has named.
func (s *Server) Options() s3.Options {
	return s3.Options{URL: s.URL(), Endpoint: s.Endpoint(), Region: region, Credentials: s.Credentials()}
}

// Credentials are the server's only ones.
func (s *Server) Credentials() *s3.Credentials {
	return &s3.Credentials{AccessKeyID: s.access, SecretAccessKey: s.secret}
}

// Open opens a new place in the bucket.
func (s *Server) Open(t testing.TB) *s3.Bucket {
	t.Helper()
	b, err := s3.Open(t.Context(), s.Options())
	if err != nil {
		t.Fatalf("s3test: %v", err)
	}
	return b
}

// Env gives the credentials and the region as the environment of a child process.
func (s *Server) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s.access, "AWS_SECRET_ACCESS_KEY=" + s.secret, "AWS_REGION=" + region}
}

// Kill ends the server without a word, as kill -9 does, and returns when it is
// gone. The objects stay.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return
	}
	s.proc.Process.Kill()
	<-s.exited
	s.proc = nil
}

// Restart starts the server again, on the same port with the same objects, and
// returns when it answers. One that runs is killed first.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.start(); err != nil {
		s.t.Fatalf("s3test: restart: %v\n%s", err, s.log.String())
	}
}

// start runs the program and waits until it answers.
func (s *Server) start() error {
	args := []string{"--port", s.addr, "--region", region, "--health", "/health", "--keep-alive", "--quiet", "posix"}
	if s.sidecar != "" {
		args = append(args, "--sidecar", s.sidecar)
	}
	cmd := exec.Command(s.binary, append(args, s.dir)...)
	// Not as flags, which every user of the machine can see.
	cmd.Env = []string{"ROOT_ACCESS_KEY_ID=" + s.access, "ROOT_SECRET_ACCESS_KEY=" + s.secret, "PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	exited, err := run(cmd)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.proc, s.exited = cmd, exited
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.await(ctx, exited); err != nil {
		s.Kill()
		return err
	}
	return nil
}

// await asks until the server answers.
func (s *Server) await(ctx context.Context, exited <-chan struct{}) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for pause := pollEvery; ; pause = min(2*pause, 20*pollEvery) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint()+"/health", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("health: %s", resp.Status)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-exited:
			timer.Stop()
			return fmt.Errorf("versitygw on %s ended at once", s.addr)
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("versitygw on %s does not answer: %w", s.addr, err)
		}
	}
}

// freePort is a loopback address that nobody listens on at the moment.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// lockedBuffer keeps what the server says, without its blank lines and banners.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const maxLog = 64 << 10

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() < maxLog {
		b.buf.Write(p)
	}
	return len(p), nil
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.TrimSpace(b.buf.String())
}
