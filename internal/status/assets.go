package status

import (
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

	"github.com/probed/probed/internal/show"
)

//go:embed templates static
var files embed.FS

// An asset is a static file.
type asset struct {
	content     []byte
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
		all[e.Name()] = asset{content, contentType(e.Name()), hex.EncodeToString(sum[:6])}
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
	send(w, r, http.StatusOK, a.contentType, a.content)
}

// compressAbove is the size in octets from which compressing is worth it.
const compressAbove = 1400

// send answers with a body, compressed if the client likes that.
func send(w http.ResponseWriter, r *http.Request, code int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Vary", "Accept-Encoding")
	if len(body) > compressAbove && acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		w.WriteHeader(code)
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // which is a level
		_, _ = z.Write(body)                           // a client that went away is no error of ours
		z.Close()
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	w.Write(body)
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
