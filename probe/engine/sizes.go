package engine

// sizes count targets by the packets of their probes, of which there are as many kinds as
// there are modules, about.
type sizes map[int]int

func (z sizes) add(packets int) { z[packets]++ }

func (z sizes) remove(packets int) {
	if z[packets]--; z[packets] == 0 {
		delete(z, packets)
	}
}

// largest is the most packets that a probe of theirs has, 0 if there are none.
func (z sizes) largest() (most int) {
	for packets, n := range z {
		if n > 0 {
			most = max(most, packets)
		}
	}
	return most
}
