package status

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/probed/probed/internal/show"
)

//go:embed templates static
var files embed.FS

// An asset is a static file.
type asset struct {
	content     []byte
	squeezed    []byte // content, compressed; nil where that is not worth it
	contentType string
	hash        string // of the content, to be a part of its address
}

func loadAssets() (map[string]asset, error) {
	all := make(map[string]asset)
	entries, err := fs.ReadDir(files, "static")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		content, err := fs.ReadFile(files, "static/"+e.Name())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(content)
		a := asset{content: content, contentType: contentType(e.Name()), hash: hex.EncodeToString(sum[:6])}
		if len(content) > compressAbove {
			a.squeezed = squeeze(content)
		}
		all[e.Name()] = a
	}
	return all, nil
}

// contentType does not ask the host, as mime.TypeByExtension would for these.
func contentType(name string) string {
	switch ext := path.Ext(name); ext {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	default:
		return mime.TypeByExtension(ext)
	}
}

// loadPages parses the template of every page together with the base's.
func (s *server) loadPages() (map[string]*template.Template, error) {
	functions := template.FuncMap{
		// asset is a static file's address. It changes with the file, so that a
		// browser may keep what it has.
		"asset": func(name string) string { return "/static/" + name + "?v=" + s.assets[name].hash },
		// text is what comes from outside, with what would reorder or hide it made
		// visible. The template escapes it besides.
		"text":    show.SafeText,
		"grouped": grouped,
		"has":     func(name string) bool { _, ok := s.assets[name]; return ok },
	}
	pages := make(map[string]*template.Template)
	for _, name := range []string{"list", "target", "error"} {
		t, err := template.New(name).Funcs(functions).ParseFS(files, "templates/base.html", "templates/"+name+".html")
		if err != nil {
			return nil, err
		}
		pages[name] = t
	}
	return pages, nil
}

// grouped writes a count with commas: 10,000.
func grouped(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// static serves /static/{file}.
func (s *server) static(w http.ResponseWriter, r *http.Request) {
	a, ok := s.assets[r.PathValue("file")]
	if !ok {
		s.fail(w, r, http.StatusNotFound, "There is no such file.")
		return
	}
	if r.URL.Query().Get("v") == a.hash {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	body := a.content
	if a.squeezed != nil && acceptsGzip(r) {
		w.Header().Set("Content-Encoding", "gzip")
		body = a.squeezed
	}
	sendWhole(w, http.StatusOK, a.contentType, body)
}

// compressAbove is the size in octets from which compressing is worth it.
const compressAbove = 1400

// send answers with a body, compressed if the client likes that.
func send(w http.ResponseWriter, r *http.Request, code int, contentType string, body []byte) {
	if len(body) > compressAbove && acceptsGzip(r) {
		w.Header().Set("Content-Encoding", "gzip")
		body = squeeze(body)
	}
	sendWhole(w, code, contentType, body)
}

// sendWhole answers with a body as it is. A client that went away is no error of ours.
func sendWhole(w http.ResponseWriter, code int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Vary", "Accept-Encoding")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body)
}

// squeezer is the one compressor, which is most of a megabyte: with one for each answer
// a few hundred clients have the process need more memory than a container has.
var (
	squeezing   sync.Mutex
	squeezer, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // which is a level
)

// squeeze compresses, before anything is written to a client, who may be slow.
func squeeze(body []byte) []byte {
	squeezing.Lock()
	defer squeezing.Unlock()
	var b bytes.Buffer
	squeezer.Reset(&b)
	defer squeezer.Reset(nil)   // it keeps no answer
	_, _ = squeezer.Write(body) // into memory
	_ = squeezer.Close()
	return b.Bytes()
}

// acceptsGzip reports whether a client named gzip, and did not refuse it by q=0.
func acceptsGzip(r *http.Request) bool {
	for _, part := range strings.Split(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, weight, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			q, found := strings.CutPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
			v, err := strconv.ParseFloat(q, 64)
			return !found || err == nil && v > 0
		}
	}
	return false
}
