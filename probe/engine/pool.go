package engine

// A pool has values that are used again, under numbers, so that whoever holds one has
// no pointer for the garbage collector to follow.
type pool[T any] struct {
	all   []*T // nil: given back
	spare []int32
	made  int // that are not nil
	most  int // in use at a time since the last trim
}

// take returns the number of a value that is nobody's, as its last user left it.
func (p *pool[T]) take() int32 {
	var i int32
	if n := len(p.spare); n > 0 {
		i, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		i = int32(len(p.all))
		p.all = append(p.all, nil)
	}
	if p.all[i] == nil {
		p.all[i] = new(T)
		p.made++
	}
	p.most = max(p.most, p.used())
	return i
}

// put takes a value back.
func (p *pool[T]) put(i int32) { p.spare = append(p.spare, i) }

func (p *pool[T]) at(i int32) *T { return p.all[i] }

// used is how many are somebody's.
func (p *pool[T]) used() int { return len(p.all) - len(p.spare) }

// trim gives back the memory of what nobody has needed since it was called last.
func (p *pool[T]) trim() {
	for _, i := range p.spare { // those that were put back first are the coldest
		if p.made <= p.most {
			break
		}
		if p.all[i] != nil {
			p.all[i] = nil
			p.made--
		}
	}
	p.most = p.used()
}
