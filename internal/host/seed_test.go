package host

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func seed(t *testing.T, dir string) []byte {
	t.Helper()
	s, err := Seed(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The seed is the same at every start, or sequence numbers would not go on rising; and
// with a folder of probed's own, nobody who can't read that can know it.
func TestSeed(t *testing.T) {
	dir := t.TempDir()
	public, first := seed(t, ""), seed(t, dir)
	if len(public) == 0 || !bytes.Equal(public, seed(t, "")) {
		t.Errorf("without a folder: %x, then %x", public, seed(t, ""))
	}
	if bytes.Equal(first, public) || !bytes.Equal(first, seed(t, dir)) {
		t.Errorf("%x is known to everybody, or not kept", first)
	}
	if bytes.Equal(first, seed(t, t.TempDir())) {
		t.Error("another folder has the same secret")
	}
	path := filepath.Join(dir, "iss.key")
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 || info.Size() != secretLen {
		t.Errorf("%v %v", info, err)
	}
	if all, _ := os.ReadDir(dir); len(all) != 1 {
		t.Errorf("%d files are left", len(all))
	}
	if err := os.WriteFile(path, []byte("cut off"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := seed(t, dir); bytes.Equal(again, public) || bytes.Equal(again, first) || !bytes.Equal(again, seed(t, dir)) {
		t.Errorf("after a file that was cut off: %x", again)
	}
	if s, err := Seed(filepath.Join(dir, "nowhere")); err == nil || !bytes.Equal(s, public) {
		t.Errorf("no such folder: %x, %v", s, err)
	}
}
