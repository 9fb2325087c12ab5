package wire_test

import (
	"bytes"
	"testing"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

func TestParseOptions(t *testing.T) {
	const mss, ws, sackOK, sack, ts, tfo, unknown, malformed = probe.OptMSS, probe.OptWindowScale, probe.OptSACKPermitted,
		probe.OptSACK, probe.OptTimestamps, probe.OptFastOpen, probe.OptUnknown, probe.OptMalformed
	cookie := func(n int) []byte {
		return append([]byte{34, byte(2 + n)}, bytes.Repeat([]byte{7}, n)...)
	}
	sacked := func(blocks int) []byte { return append([]byte{5, byte(2 + 8*blocks)}, make([]byte, 8*blocks)...) }

	for _, c := range []struct {
		name string
		b    []byte
		want probe.Options // but for Raw
	}{
		{"none", nil, probe.Options{}},
		{"only padding", []byte{1, 1, 1, 0}, probe.Options{}},
		{"MSS", []byte{2, 4, 5, 0xb4}, probe.Options{Set: mss, MSS: 1460}},
		{"MSS 0 is kept", []byte{2, 4, 0, 0}, probe.Options{Set: mss}},
		{"MSS of length 3", []byte{2, 3, 5, 1}, probe.Options{Set: malformed}},
		{"MSS of length 5, then window scale", []byte{2, 5, 5, 5, 5, 3, 3, 9}, probe.Options{Set: malformed | ws, WindowScale: 9}},
		{"window scale above 14 is kept", []byte{3, 3, 200, 0}, probe.Options{Set: ws, WindowScale: 200}},
		{"window scale of length 2", []byte{3, 2, 1, 1}, probe.Options{Set: malformed}},
		{"SACK permitted", []byte{1, 1, 4, 2}, probe.Options{Set: sackOK}},
		{"SACK permitted of length 3", []byte{4, 3, 0, 0}, probe.Options{Set: malformed}},
		{"SACK, 1 block", sacked(1), probe.Options{Set: sack}},
		{"SACK, 4 blocks", sacked(4), probe.Options{Set: sack}},
		{"SACK, no block", []byte{5, 2, 0, 0}, probe.Options{Set: malformed}},
		{"SACK, half a block", []byte{5, 6, 0, 0, 0, 0, 0, 0}, probe.Options{Set: malformed}},
		{"timestamps", []byte{8, 10, 1, 2, 3, 4, 5, 6, 7, 8}, probe.Options{Set: ts, TSVal: 0x01020304, TSEcr: 0x05060708}},
		{"timestamps of length 6", []byte{8, 6, 1, 2, 3, 4}, probe.Options{Set: malformed}},
		{"fast open request", cookie(0), probe.Options{Set: tfo}},
		{"fast open, 2 octets", cookie(2), probe.Options{Set: malformed}},
		{"fast open, 4 octets", cookie(4), probe.Options{Set: tfo, CookieLen: 4, Cookie: [16]byte{7, 7, 7, 7}}},
		{"fast open, 5 octets", cookie(5), probe.Options{Set: malformed}},
		{"fast open, 16 octets", cookie(16), probe.Options{Set: tfo, CookieLen: 16, Cookie: [16]byte(bytes.Repeat([]byte{7}, 16))}},
		{"fast open, 18 octets", cookie(18), probe.Options{Set: malformed}},
		{"experimental fast open is unknown", []byte{254, 4, 0xf9, 0x89}, probe.Options{Set: unknown}},
		{"MD5 is unknown", append([]byte{19, 18}, make([]byte, 16)...), probe.Options{Set: unknown}},
		{"unknown between known", []byte{2, 4, 5, 0xb4, 77, 3, 9, 3, 3, 7}, probe.Options{Set: mss | ws | unknown, MSS: 1460, WindowScale: 7}},
		{"the last of two counts", []byte{2, 4, 5, 0xb4, 2, 4, 2, 0}, probe.Options{Set: mss, MSS: 512}},
		{"the last cookie counts", append(cookie(4), cookie(0)...), probe.Options{Set: tfo}},
		{"after end of list", []byte{0, 2, 4, 5, 0xb4, 77, 0}, probe.Options{}},
		{"after end of list, what would be malformed", []byte{0, 2, 0, 0}, probe.Options{}},
		{"length 0", []byte{2, 0, 5, 0xb4}, probe.Options{Set: malformed}},
		{"length 1", []byte{8, 1, 0, 0}, probe.Options{Set: malformed}},
		{"unknown with length 0", []byte{3, 3, 7, 99, 0, 0}, probe.Options{Set: malformed | ws, WindowScale: 7}},
		{"beyond the end", []byte{1, 1, 2, 4}, probe.Options{Set: malformed}},
		{"length missing", []byte{1, 1, 1, 2}, probe.Options{Set: malformed}},
	} {
		got := probe.Options{Set: 0xffff, MSS: 1, Cookie: [16]byte{1}, CookieLen: 3, TSVal: 9} // overwritten
		wire.ParseOptions(c.b, &got)
		if !bytes.Equal(got.Raw[:got.RawLen], c.b) {
			t.Errorf("%s: Raw = %x, want %x", c.name, got.Raw[:got.RawLen], c.b)
		}
		got.RawLen, got.Raw = 0, c.want.Raw
		if got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
	}
}

func TestParseOptionsBeyondMax(t *testing.T) {
	var o probe.Options
	wire.ParseOptions(append(bytes.Repeat([]byte{1}, 40), 2, 4, 5, 0xb4), &o)
	if o.RawLen != probe.MaxOptions || o.Set != 0 {
		t.Errorf("%+v", o)
	}
}

// The layouts are those of Linux: a SYN's and a SYN-ACK's from a capture, and
// the rest from tcp_options_write.
func TestAppendOptionsLikeLinux(t *testing.T) {
	var o probe.Options
	for _, c := range []struct {
		name string
		set  probe.OptionSet
		want string
	}{
		{"none", 0, ""},
		{"as Linux's SYN", probe.OptMSS | probe.OptSACKPermitted | probe.OptTimestamps | probe.OptWindowScale, "020405b4" + "0402080a0102030405060708" + "01030307"},
		{"without SACK", probe.OptMSS | probe.OptTimestamps | probe.OptWindowScale, "020405b4" + "0101080a0102030405060708" + "01030307"},
		{"without timestamps", probe.OptMSS | probe.OptSACKPermitted | probe.OptWindowScale, "020405b4" + "01010402" + "01030307"},
		{"MSS only", probe.OptMSS, "020405b4"},
		{"fast open", probe.OptFastOpen, "22080a0b0c0d0e0f"},
		{"what needs Raw is left out", probe.OptSACK | probe.OptUnknown | probe.OptMalformed, ""},
	} {
		o = probe.Options{Set: c.set, MSS: 1460, WindowScale: 7, TSVal: 0x01020304, TSEcr: 0x05060708,
			CookieLen: 6, Cookie: [16]byte{10, 11, 12, 13, 14, 15}}
		if got := wire.AppendOptions(nil, &o); !bytes.Equal(got, unhex(t, c.want)) {
			t.Errorf("%s: %x, want %s", c.name, got, c.want)
		}
	}
	for _, packet := range []string{linuxSYN4, linuxSYNACK4} {
		p := parse(t, unhex(t, packet))
		o = unraw(p.Segment).Options
		if got := wire.AppendOptions(nil, &o); !bytes.Equal(got, unhex(t, packet)[40:]) {
			t.Errorf("from fields %x, Linux sent %x", got, unhex(t, packet)[40:])
		}
	}
}

func TestAppendOptionsFits(t *testing.T) {
	all := probe.Options{Set: 0xffff, CookieLen: 16}
	if got := wire.AppendOptions(nil, &all); len(got) != probe.MaxOptions {
		t.Errorf("everything takes %d octets, want %d", len(got), probe.MaxOptions)
	}
	for n := range 256 { // whatever the caller wrote into the lengths
		for _, o := range []probe.Options{{RawLen: uint8(n)}, {Set: 0xffff, CookieLen: uint8(n)}} {
			if got := wire.AppendOptions(nil, &o); len(got) > probe.MaxOptions || len(got)%4 != 0 {
				t.Errorf("length %d: %d octets", n, len(got))
			}
		}
	}
	raw := probe.Options{RawLen: 5, Raw: [40]byte{1, 2, 3, 4, 5, 6}, Set: probe.OptMSS}
	if got := wire.AppendOptions(nil, &raw); !bytes.Equal(got, []byte{1, 2, 3, 4, 5, 0, 0, 0}) {
		t.Errorf("Raw goes before Set, padded: %x", got)
	}
}
