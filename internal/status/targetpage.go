package status

import "net/http"

// targetPage serves /targets/{id}.
func (s *server) targetPage(w http.ResponseWriter, r *http.Request) {
	t, ok := s.Source.Target(r.PathValue("id"))
	if !ok {
		s.fail(w, r, http.StatusNotFound, "There is no such target. It may have gone with the last reload of the configuration.")
		return
	}
	s.render(w, r, http.StatusOK, page{Title: t.Address, Name: "target", Body: t})
}
