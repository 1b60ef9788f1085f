package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/minio/minio-go/v7"

	"github.com/shardpress/shardpress/objstore"
)

// failure is why a request failed, without anything that could hold a credential:
// what a server says may quote the request.
type failure struct {
	status  int    // 0: no answer
	code    string // of the server
	message string // of the server, or what went wrong on the way
	region  string // the server's idea of the bucket's, if it said
	date    time.Time
	cause   error // if there was no answer
	passes  bool  // trying again may help
	expired bool  // with other credentials
}

func (f *failure) Error() string {
	if f.status == 0 {
		return f.message
	}
	s := fmt.Sprintf("server answered %d", f.status)
	if f.code != "" {
		s += " " + f.code
	}
	if f.message != "" {
		s += ": " + f.message
	}
	return s
}

func (f *failure) Unwrap() error { return f.cause }

// maxMessage bounds what is quoted of a server.
const maxMessage = 200

// classify turns an error of minio-go into a *failure. Errors of the context stay.
func (b *Bucket) classify(err error, x *exchange) error {
	var f *failure
	if errors.As(err, &f) {
		return err
	}
	if errors.As(x.err, &f) {
		return f
	}
	if errors.Is(err, errNoCredentials) {
		return errNoCredentials
	}
	var resp minio.ErrorResponse
	errors.As(err, &resp)
	switch {
	case x.status >= http.StatusBadRequest:
		// To a HEAD there is no document, and minio-go guesses the code.
		c := cmp.Or(x.refusal.Code, resp.Code)
		if strings.ContainsFunc(c, unicode.IsSpace) { // the status line, for want of a code
			c = ""
		}
		return b.refused(x, c, x.refusal.Message, x.refusal.Region)
	case x.status != 0 && resp.Code != "" && resp.RequestID != "minio": // an error within a good answer, and not of minio-go's own
		return b.refused(x, resp.Code, resp.Message, resp.Region)
	case x.status >= http.StatusMultipleChoices:
		return b.refused(x, "", resp.Message, resp.Region)
	case x.status != 0: // a good answer that was cut off, or is not S3's
		return &failure{message: "answer of the server could not be read: " + b.quote(err.Error()), passes: true}
	}
	cause := err
	if x.err != nil {
		cause = x.err
	}
	cause = plain(cause)
	return &failure{message: b.quote(cause.Error()), cause: cause, passes: !hopeless(cause)}
}

// refused makes a failure of what a server said.
func (b *Bucket) refused(x *exchange, code, message, region string) *failure {
	f := &failure{status: x.status, code: b.quote(code), message: b.quote(message), region: b.quote(region), date: x.date}
	f.passes = passing(f.status, f.code)
	f.expired = f.code == "ExpiredToken" || f.code == "ExpiredTokenException"
	return f
}

// plain is an error of the transport without the URL that net/http puts around it.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// quote makes a text of others fit to be shown.
func (b *Bucket) quote(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(b.secrets.scrub(s), "?"))
	if r := []rune(s); len(r) > maxMessage {
		s = string(r[:maxMessage]) + "..."
	}
	return strings.TrimSpace(s)
}

// direction is what an operation wanted, which decides what a refusal means.
type direction int

const (
	reading direction = iota
	writing
)

// explain adds the sentinel and the remedy to an error of do. It may be given one that
// it has explained already, or none.
func (b *Bucket) explain(err error, d direction) error {
	var (
		f *failure
		e *explained
	)
	if errors.As(err, &e) || !errors.As(err, &f) {
		return err
	}
	return &explained{b.explanation(f, d)}
}

// explained is an error that has been through explain.
type explained struct{ error }

func (e *explained) Unwrap() error { return e.error }

func (b *Bucket) explanation(f *failure, d direction) error {
	if remedy, sentinel := b.meaning(f, d); sentinel != nil {
		return fmt.Errorf("%w: %s%w", sentinel, remedy, f)
	}
	switch {
	case f.status == 0 && errors.Is(f.cause, context.DeadlineExceeded):
		return fmt.Errorf("%s did not answer in time: %w", b.endpoint.Host, f)
	case f.status == 0 && f.passes:
		return fmt.Errorf("%s cannot be reached: %w", b.endpoint.Host, f)
	case f.code == "NoSuchUpload":
		return fmt.Errorf("somebody aborted the upload while it was under way: %w", f)
	case f.code == "EntityTooLarge":
		return fmt.Errorf("this server takes no object so large: %w", f)
	}
	return f
}

// meaning finds the sentinel of a failure; the remedy ends so that the failure can
// follow.
func (b *Bucket) meaning(f *failure, d direction) (remedy string, sentinel error) {
	switch f.code {
	case "NoSuchBucket":
		return "", b.noBucket()
	case "NoSuchKey", "NoSuchVersion":
		return "", objstore.ErrNotExist
	case "KeyTooLongError", "XMinioInvalidObjectName", "InvalidObjectName", "XMinioInvalidResourceName":
		return "this server does not take such keys: ", objstore.ErrKey
	case "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "StorageFull", "InsufficientCapacity":
		return "free space or have the quota raised, then run again: ", objstore.ErrFull
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "AuthFailure", "XAdminUserNotFound":
		return "the credentials are not accepted: check that AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile or role) are for " + b.endpoint.Host + ": ", objstore.ErrRoot
	case "RequestTimeTooSkewed", "RequestExpired":
		return skew(f.date) + ": ", objstore.ErrRoot
	case "AuthorizationHeaderMalformed", "InvalidRegion", "PermanentRedirect", "IllegalLocationConstraintException", "TemporaryRedirect":
		remedy := "the bucket is in another region: set the region (--s3-region, AWS_REGION): "
		if f.region != "" {
			remedy = fmt.Sprintf("the bucket is in region %s: set it (--s3-region, AWS_REGION): ", f.region)
		}
		return remedy, objstore.ErrRoot
	case "NotImplemented", "MethodNotAllowed":
		if d == writing {
			return "", objstore.ErrReadOnly
		}
	}
	switch {
	case f.status == http.StatusInsufficientStorage:
		return "free space or have the quota raised, then run again: ", objstore.ErrFull
	case f.status == http.StatusForbidden && d == writing:
		return "the credentials may not write here: their policy needs s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload: ", objstore.ErrReadOnly
	case f.status == http.StatusForbidden, f.status == http.StatusUnauthorized:
		return "the credentials may not read here: their policy needs s3:GetObject, and s3:ListBucket on the bucket: ", objstore.ErrRoot
	case f.status == http.StatusNotFound && f.code == "":
		return "", objstore.ErrNotExist
	case f.status == http.StatusMovedPermanently, f.status == http.StatusTemporaryRedirect:
		return "the bucket is in another region, or the endpoint is not its own: ", objstore.ErrRoot
	case f.status == 0 && hopeless(f.cause):
		return "check the endpoint, its scheme (http or https) and its certificate: ", objstore.ErrRoot
	}
	return "", nil
}

// skew tells how far this machine's clock is from the server's.
func skew(server time.Time) string {
	if server.IsZero() {
		return "this machine's clock differs too much from the server's: set it (NTP)"
	}
	d := time.Since(server).Round(time.Second)
	if d < 0 {
		return fmt.Sprintf("this machine's clock is %s behind the server's: set it (NTP)", -d)
	}
	return fmt.Sprintf("this machine's clock is %s ahead of the server's: set it (NTP)", d)
}

// code is the server's code in an error of do, if there is one.
func code(err error) string {
	var f *failure
	if errors.As(err, &f) {
		return f.code
	}
	return ""
}

// status is the server's status in an error of do, 0 if it did not answer.
func status(err error) int {
	var f *failure
	if errors.As(err, &f) {
		return f.status
	}
	return 0
}

// denied says that the credentials are good, but not for this.
func denied(err error) bool { return status(err) == http.StatusForbidden }
