package queue

import (
	"encoding/json"
	"net/http"
	"testing"
)

// The page to which a doctor sends people says what they look for.
func TestMonitor(t *testing.T) {
	t.Parallel()
	b, err := StartBroker(BrokerOptions{Dir: scratch(t), Listen: "127.0.0.1:0", Monitor: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	var page struct {
		Config struct {
			Sync bool `json:"sync_always"`
		} `json:"config"`
	}
	for path, v := range map[string]any{"/jsz?config=1": &page, "/healthz": &struct{}{}} {
		r, err := http.Get(b.MonitorURL() + path)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.NewDecoder(r.Body).Decode(v); err != nil || r.StatusCode != http.StatusOK {
			t.Errorf("%s: %s, %v", path, r.Status, err)
		}
		if err := r.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	if !page.Config.Sync {
		t.Error("the broker does not say that it syncs always")
	}
	if url := broker(t, BrokerOptions{}).MonitorURL(); url != "" {
		t.Errorf("a page that nobody wanted: %s", url)
	}
}

func TestUnprotected(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		o    BrokerOptions
		want bool
	}{
		{BrokerOptions{}, false},
		{BrokerOptions{Listen: "127.0.0.1:4222"}, false},
		{BrokerOptions{Listen: "[::1]:4222"}, false},
		{BrokerOptions{Listen: "localhost:4222"}, false},
		{BrokerOptions{Listen: ":4222"}, true},
		{BrokerOptions{Listen: "0.0.0.0:4222"}, true},
		{BrokerOptions{Listen: "broker.example:4222", TLSCert: "c", TLSKey: "k"}, true},
		{BrokerOptions{Listen: "0.0.0.0:4222", TLSCA: "ca"}, false},
		{BrokerOptions{Listen: "0.0.0.0:4222", AuthFile: "users"}, false},
	} {
		if got := c.o.Unprotected(); got != c.want {
			t.Errorf("%+v: %v", c.o, got)
		}
	}
}
