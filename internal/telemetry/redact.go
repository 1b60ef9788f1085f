package telemetry

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
)

const redacted = "[redacted]"

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

// Redact takes credentials out of a text that is meant for logs and traces.
func Redact(s string) string {
	if strings.Contains(s, "://") {
		s = userinfo.ReplaceAllString(s, "${1}")
		s = badUserinfo.ReplaceAllString(s, "${1}")
	}
	if strings.Contains(s, "=") {
		s = secretKV.ReplaceAllString(s, "${1}"+redacted)
	}
	s = bearer.ReplaceAllString(s, "${1} "+redacted)
	return nkeySeed.ReplaceAllString(s, redacted)
}

// redactAttr takes credentials out of an attribute of a log record.
func redactAttr(a slog.Attr) slog.Attr {
	if secretKey.MatchString(a.Key) && a.Value.Kind() != slog.KindBool && a.Value.Kind() != slog.KindInt64 {
		return slog.String(a.Key, redacted)
	}
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(Redact(a.Value.String()))
	case slog.KindAny:
		a.Value = redactAny(a.Value.Any())
	}
	return a
}

// redactAny redacts the text of a value, and leaves it as it was if there is
// nothing to hide.
func redactAny(v any) slog.Value {
	switch v := v.(type) {
	case nil:
		return slog.AnyValue(nil)
	case error:
		return slog.StringValue(Redact(v.Error()))
	case fmt.Stringer:
		return slog.StringValue(Redact(v.String()))
	case []byte:
		return slog.StringValue(Redact(string(v)))
	case *slog.Source:
		return slog.AnyValue(v)
	}
	text := fmt.Sprintf("%+v", v)
	if b, err := json.Marshal(v); err == nil {
		text = string(b)
	}
	if clean := Redact(text); clean != text {
		return slog.StringValue(clean)
	}
	return slog.AnyValue(v)
}
