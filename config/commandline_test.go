package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/probed/probed/probe"
)

func TestParseSend(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                               "",
		`HEAD / HTTP/1.0\r\n\r\n`:        "HEAD / HTTP/1.0\r\n\r\n",
		`\t\0\\\"'"`:                     "\t\x00\\\"'\"",
		`\x00\xff\xC3\xa9`:               "\x00\xff\xc3\xa9",
		strings.Repeat(`\x61`, maxSend):  strings.Repeat("a", maxSend),
		"a line\nand one more, as it is": "a line\nand one more, as it is",
	} {
		if got, err := ParseSend(text); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", clip(text), got, err)
		}
	}
	for text, want := range map[string]string{
		`a\`:                              `\ is not an escape`,
		`\q`:                              `\q is not an escape`,
		`\x0`:                             `\x is not an escape`,
		`\xg0`:                            `\x is not an escape`,
		"é":                               `write its octets, \xc3\xa9 in UTF-8`,
		"\xff":                            "is not ASCII",
		strings.Repeat("a", maxSend+1):    "16,385 octets are too many to send",
		strings.Repeat(`\x61`, maxSend+1): "16,385 octets are too many to send",
	} {
		if got, err := ParseSend(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v", clip(text), got, err)
		}
	}
}

// TestParseSendAsYAML holds the escapes against those of a file.
func TestParseSendAsYAML(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`HEAD / HTTP/1.0\r\n\r\n`, `\t\0\\\"`, `\x00\x7f\x80\xff`} {
		c, err := Parse("x.yml", []byte("modules: {active_close: {send: \""+text+"\"}}\njobs: []\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseSend(text); err != nil || string(got) != string(c.Modules["active_close"].Send) {
			t.Errorf("%s: %q, in a file %q, %v", text, got, c.Modules["active_close"].Send, err)
		}
	}
}

func TestReadSend(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "request")
	if _, err := ReadSend(file); err == nil || !strings.Contains(err.Error(), "request\" cannot be read: no such file") {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("\x00é"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadSend(file); err != nil || string(b) != "\x00é" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestParsePortRange(t *testing.T) {
	t.Parallel()
	if r, err := ParsePortRange("61300-61363"); err != nil || r != (PortRange{61300, 61363}) {
		t.Errorf("%v, %v", r, err)
	}
	for _, s := range []string{"", "61300", "61300-", "61300-61300", "61363-61300", "1-5", "61300-70000", "a-b"} {
		if r, err := ParsePortRange(s); err == nil || r != (PortRange{}) {
			t.Errorf("%q: %v, %v", s, r, err)
		}
	}
}

// TestBuiltInIsFeasible: what the kinds are without a file can be probed.
func TestBuiltInIsFeasible(t *testing.T) {
	t.Parallel()
	c := BuiltIn()
	for _, k := range allKinds {
		m := c.Modules[k.String()]
		if err := m.Feasible(); err != nil || m.Probe != k {
			t.Errorf("%v: %v, %v", k, m.Probe, err)
		}
	}
	m := c.Modules["time_wait"]
	m.Measures(probe.MeasureDuration)
	if err := m.Feasible(); err != nil || m.Limit == 0 || m.After != 0 || m.Conversations() != 1 {
		t.Errorf("%+v, %v", m, err)
	}
	m.Interval = m.Timeout
	if err := m.Feasible(); err == nil || !strings.Contains(err.Error(), "shorten limit") {
		t.Error(err)
	}
	m = c.Modules["active_close"]
	if n := m.Conversations(); n != 5 {
		t.Errorf("%d conversations open at once by a timeout of 5s every 1s", n)
	}
}
