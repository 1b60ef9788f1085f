package s3

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/shardpress/shardpress/objstore"
)

// Credentials are what requests are signed with. They print as a placeholder,
// whatever the verb, in logs and in JSON too.
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string // only with temporary ones
}

const redacted = "[credentials]"

// Format hides the credentials.
func (Credentials) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue hides the credentials.
func (Credentials) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON hides the credentials.
func (Credentials) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// metadataTimeout bounds a question to the machine's metadata service, which where
// there is none may be met with silence.
const metadataTimeout = 5 * time.Second

// errNoCredentials is what the chain ends with. Why a link gave nothing is not told:
// a parser may quote the line that it could not read.
var errNoCredentials = fmt.Errorf("%w: no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for one in the shared credentials file, "+
	"or give the machine, container or service account a role", objstore.ErrRoot)

// secrets finds credentials, and remembers those in use, so that they can be taken
// out of what others say.
type secrets struct {
	links []credentials.Provider

	mu      sync.Mutex
	current credentials.Provider // that gave the ones in use
	known   []string
}

// chain makes the credentials that o asks for.
func (s *secrets) chain(o Options, amazon bool) *credentials.Credentials {
	if c := o.Credentials; c != nil {
		s.links = []credentials.Provider{&credentials.Static{Value: credentials.Value{
			AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken, SignerType: credentials.SignatureV4,
		}}}
		return credentials.New(s)
	}
	s.links = []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}
	// The metadata service of a machine is only asked where it is likely to be one
	// of Amazon's: elsewhere the question ends after a long wait, or at a stranger.
	inContainer := os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != "" || os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != "" ||
		os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") != ""
	if inContainer || amazon && !strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		s.links = append(s.links, &credentials.IAM{Region: o.Region, Client: &http.Client{Timeout: metadataTimeout}})
	}
	return credentials.New(s)
}

// RetrieveWithCredContext asks one link after the other. It is part of what
// minio-go wants of a provider.
func (s *secrets) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	for _, p := range s.links {
		v, err := p.RetrieveWithCredContext(cc)
		if err != nil || v.AccessKeyID == "" || v.SecretAccessKey == "" {
			continue
		}
		s.mu.Lock()
		s.current = p
		for _, text := range []string{v.SecretAccessKey, v.SessionToken, v.AccessKeyID} {
			if text != "" {
				s.known = append(s.known, text)
			}
		}
		// The last few: a message may tell of what has just expired.
		if over := len(s.known) - maxKnown; over > 0 {
			s.known = s.known[over:]
		}
		s.mu.Unlock()
		return v, nil
	}
	return credentials.Value{}, errNoCredentials
}

const maxKnown = 12

// Retrieve is the older form of RetrieveWithCredContext.
func (s *secrets) Retrieve() (credentials.Value, error) { return s.RetrieveWithCredContext(nil) }

// IsExpired says whether the credentials must be asked for again.
func (s *secrets) IsExpired() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current == nil || s.current.IsExpired()
}

// signed are the forms in which a server or a proxy may quote a signed request.
var signed = regexp.MustCompile(`(?i)(signature|credential|x-amz-security-token|authorization|password|secret)(["']?\s*[=:]\s*["']?)[^\s,;&"'<]+`)

// scrub takes credentials, and what looks like some, out of a text of others.
func (s *secrets) scrub(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.known {
		text = strings.ReplaceAll(text, k, "[removed]")
	}
	return signed.ReplaceAllString(text, "$1$2[removed]")
}
