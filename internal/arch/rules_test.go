package arch

const module = "github.com/probed/probed"

// room is a folder with all that is below it, up to the next room.
type room struct {
	// mayImport lists the rooms of ours that code here, not tests, may import
	// besides itself.
	mayImport []string
	// others lists the packages that are not ours that it may import; nil means
	// any. It is for the rooms that must run the same in a test, a simulation and
	// a fuzzer: no socket, file or log of their own.
	others []string
	// timeless forbids what reads a clock or waits for one: time is an argument.
	timeless bool
}

// pure is what a value that only computes can need.
var pure = []string{
	"bytes", "cmp", "encoding/binary", "errors", "fmt", "iter", "maps", "math", "math/bits",
	"net/netip", "slices", "sort", "strconv", "strings", "time", "unicode/utf8",
}

var everything = []string{
	"probe", "probe/wire", "probe/engine", "rawsock", "metrics", "config",
	"internal/confine", "internal/discovery", "internal/host", "internal/memory", "internal/ondemand", "internal/ping", "internal/recorder", "internal/script", "internal/show", "internal/status", "internal/targets", "cmd/probed",
}

// rooms is the import table. A new folder is a decision: it gets its line here,
// and its rule in .golangci.yml, which says the same to an editor.
var rooms = map[string]room{
	"probe":      {others: pure, timeless: true},
	"probe/wire": {mayImport: []string{"probe"}, others: pure, timeless: true},
	"probe/engine": {
		mayImport: []string{"probe", "probe/wire"},
		others: append([]string{
			"context", "crypto/rand", "github.com/dchest/siphash", "math/rand/v2", "runtime", "sync", "sync/atomic", "unique", "unsafe",
		}, pure...),
		timeless: true,
	},
	"rawsock":            {},
	"metrics":            {mayImport: []string{"probe"}},
	"config":             {mayImport: []string{"probe"}},
	"internal/confine":   {},
	"internal/discovery": {mayImport: []string{"internal/memory"}},
	"internal/host":      {mayImport: []string{"probe", "probe/wire", "probe/engine", "rawsock"}},
	"internal/memory":    {},
	"internal/targets":   {mayImport: []string{"probe", "probe/engine", "config", "metrics", "internal/recorder"}},
	"internal/recorder":  {mayImport: []string{"probe"}},
	"internal/show":      {mayImport: []string{"probe", "probe/wire"}},
	"internal/status":    {mayImport: []string{"probe", "metrics", "internal/recorder", "internal/show"}},
	"internal/ondemand":  {mayImport: []string{"probe", "config", "metrics", "internal/show"}},
	"internal/ping":      {mayImport: []string{"probe", "internal/show"}, timeless: true},
	"internal/script":    {mayImport: []string{"probe"}},
	"internal/lab":       {mayImport: everything},
	"internal/arch":      {},
	"internal/booted":    {},
	"internal/tools":     {},
	"cmd/probed":         {mayImport: everything},

	"internal/monitoring":       {}, // tests alone
	"internal/kubernetes":       {}, // tests alone
	"internal/docs":             {}, // tests alone
	"internal/scale":            {}, // tests alone
	"internal/kubernetes/admit": {}, // a module of its own
}

// testOnly are the rooms that only tests may import, wherever they are.
var testOnly = []string{"internal/lab", "internal/arch", "internal/booted"}

// clocks are the functions of package time that read a clock or wait for one.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
