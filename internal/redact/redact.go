// Package redact takes credentials out of what is meant for people: logs, traces,
// records of attempts. It is the last line: whoever makes an error leaves them out.
package redact

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
)

// hidden stands in the place of what nobody may read.
const hidden = "[redacted]"

// Credentials as they stand in texts: user and password of a URL, parameters of a
// signed or otherwise secret URL, and what follows the word Bearer. Parsing each
// URL would miss those inside other words, which is where clients put them.
var (
	userinfo = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#"'<>@]*(?:@[^\s/?#"'<>@]*)*@`)
	// A password with a slash in it makes no URL, and stands in the error that says so.
	badUserinfo = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#"'<>@:]*:[0-9]*[^0-9/\s"'<>@][^\s"'<>@]*@`)
	secretKV    = regexp.MustCompile(`(?i)\b((?:x-amz-signature|awsaccesskeyid|signature|[a-z0-9_-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|credentials?))=)[^\s&"'<>]+`)
	bearer      = regexp.MustCompile(`(?i)\b(bearer|basic) [A-Za-z0-9._~+/=-]{8,}`)
	nkeySeed    = regexp.MustCompile(`\bS[UAOCNX][A-Z2-7]{56}\b`)
)

// secretKey matches the name of an attribute whose value nobody may read.
var secretKey = regexp.MustCompile(`(?i)(^|[._-])(password|passwd|secret|token|authorization|credentials?|creds|cookie|api[_-]?key|access[_-]?key(?:[_-]?id)?|secret[_-]?access[_-]?key|session[_-]?token|private[_-]?key|nkey|seed|jwt)$`)

// Text takes credentials out of a text.
func Text(s string) string {
	if strings.Contains(s, "://") {
		s = userinfo.ReplaceAllString(s, "${1}")
		s = badUserinfo.ReplaceAllString(s, "${1}")
	}
	if strings.Contains(s, "=") {
		s = secretKV.ReplaceAllString(s, "${1}"+hidden)
	}
	s = bearer.ReplaceAllString(s, "${1} "+hidden)
	return nkeySeed.ReplaceAllString(s, hidden)
}

// Attr takes credentials out of an attribute of a log record. It has the form of
// slog.HandlerOptions.ReplaceAttr.
func Attr(_ []string, a slog.Attr) slog.Attr {
	if secretKey.MatchString(a.Key) && a.Value.Kind() != slog.KindBool && a.Value.Kind() != slog.KindInt64 {
		return slog.String(a.Key, hidden)
	}
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(Text(a.Value.String()))
	case slog.KindAny:
		a.Value = anyValue(a.Value.Any())
	}
	return a
}

// anyValue redacts the text of a value, and leaves it as it was if there is
// nothing to hide.
func anyValue(v any) slog.Value {
	switch v := v.(type) {
	case nil:
		return slog.AnyValue(nil)
	case error:
		return slog.StringValue(Text(v.Error()))
	case fmt.Stringer:
		return slog.StringValue(Text(v.String()))
	case []byte:
		return slog.StringValue(Text(string(v)))
	case *slog.Source:
		return slog.AnyValue(v)
	}
	text := fmt.Sprintf("%+v", v)
	if b, err := json.Marshal(v); err == nil {
		text = string(b)
	}
	if clean := Text(text); clean != text {
		return slog.StringValue(clean)
	}
	return slog.AnyValue(v)
}
