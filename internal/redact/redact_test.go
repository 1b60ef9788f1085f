package redact

import (
	"bytes"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	t.Parallel()
	seed := "SUA" + strings.Repeat("B7", 27) + "A"
	for in, want := range map[string]string{
		"dial nats://user:pass@host:4222: refused":             "dial nats://host:4222: refused",
		"dial nats://token@host:4222: refused":                 "dial nats://host:4222: refused",
		"nats://u:p@ss@a:1,nats://u:q@b:2":                     "nats://a:1,nats://b:2",
		`parse "nats://u:pa/ss@host": invalid port`:            `parse "nats://host": invalid port`,
		"hf://owner/name@0123abc":                              "hf://owner/name@0123abc",
		"https://hub.example:8443/owner/name@main/x":           "https://hub.example:8443/owner/name@main/x",
		"GET https://s3/x?X-Amz-Signature=abc123&X-Amz-Date=2": "GET https://s3/x?X-Amz-Signature=[redacted]&X-Amz-Date=2",
		"x?X-Amz-Credential=AKIA/2/us&token=t":                 "x?X-Amz-Credential=[redacted]&token=[redacted]",
		"AWS_SECRET_ACCESS_KEY=abc/def next":                   "AWS_SECRET_ACCESS_KEY=[redacted] next",
		"Authorization: Bearer hf_abcdefghij":                  "Authorization: Bearer [redacted]",
		"seed " + seed + " bad":                                "seed [redacted] bad",
		"rows=3 tokens=512 key=tasks/aa/b":                     "rows=3 tokens=512 key=tasks/aa/b",
		"bearer of news, basic idea":                           "bearer of news, basic idea",
	} {
		if got := Text(in); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
		if again := Text(want); again != want {
			t.Errorf("%s changes when it is redacted again: %s", want, again)
		}
	}
}

func TestAttr(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	u, err := url.Parse("s3://key:" + secret + "@host/b")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, h := range []slog.Handler{
		slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: Attr}),
		slog.NewJSONHandler(&b, &slog.HandlerOptions{ReplaceAttr: Attr, AddSource: true}),
	} {
		log := slog.New(h)
		log.With("password", secret, "nats_token", secret).Warn("connect to nats://a:"+secret+"@host",
			"err", errors.New("dial nats://a:"+secret+"@host"), "url", u, "raw", []byte("token="+secret),
			slog.Group("s3", "secretAccessKey", secret, "access-key-id", secret, "session_token", secret),
			"config", struct{ URL string }{"nats://a:" + secret + "@host"}, "map", map[string]string{"x": "password=" + secret},
			"Authorization", secret, "creds", secret)
		log.Info("plain", "task", "abc", "rows", 3, "list", []int{1, 2}, "tokens", 512, "nothing", nil)
	}
	out := b.String()
	if strings.Contains(out, secret) {
		t.Errorf("the log tells the secret:\n%s", out)
	}
	for _, want := range []string{`"list":[1,2]`, `"tokens":512`, `"rows":3`, "task=abc", "nats://host", "s3://host/b", `"source":{"function"`} {
		if !strings.Contains(out, want) {
			t.Errorf("the log lacks %s:\n%s", want, out)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("nats://user:pass@host:4222/x?token=abc")
	f.Fuzz(func(t *testing.T, s string) {
		_ = Text(s)
		in := "x nats://u:" + strings.Map(func(r rune) rune {
			if strings.ContainsRune(" \t\r\n\v\f\"'<>", r) || r == '\ufffd' || r > 126 || r < 32 {
				return 'q'
			}
			return r
		}, s) + "secretword@host"
		if strings.Contains(Text(in), "secretword") && !strings.Contains(s, "/") && !strings.ContainsAny(s, "?#") {
			t.Errorf("%q keeps its password: %q", in, Text(in))
		}
	})
}
