package status

import "net/http"

// listPage serves /: the targets.
func (s *server) listPage(w http.ResponseWriter, r *http.Request) {
	s.render(w, r, http.StatusOK, page{Title: "Targets", Name: "list", Body: s.Source.Targets()})
}
