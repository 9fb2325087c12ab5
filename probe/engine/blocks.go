package engine

// Blocks are lists of moments and numbers, in pieces of four cache lines that are read
// from first to last, and used again. A list is the number of its first block, 0 if it
// is empty.
type blocks struct {
	all  [][]block // not pointers to arrays: see piece
	free int32     // a list
}

type block struct {
	next, n int32
	items   [blockLen]timed[int32]
}

const (
	blockLen     = 15
	blocksApiece = 64
)

// at finds a block.
func (p *blocks) at(b int32) *block {
	return &p.all[uint32(b-1)/blocksApiece][uint32(b-1)%blocksApiece]
}

// add adds to a list.
func (p *blocks) add(list *int32, x timed[int32]) {
	if *list == 0 || p.at(*list).n == blockLen {
		if p.free == 0 {
			p.grow()
		}
		b := p.free
		bl := p.at(b)
		p.free = bl.next
		bl.next, bl.n = *list, 0
		*list = b
	}
	bl := p.at(*list)
	bl.items[bl.n] = x
	bl.n++
}

// grow makes more blocks.
func (p *blocks) grow() {
	first := int32(len(p.all)) * blocksApiece
	p.all = append(p.all, new([blocksApiece]block)[:])
	for b := first + blocksApiece; b > first; b-- {
		p.at(b).next = p.free
		p.free = b
	}
}

// remove removes one from a list that is not empty.
func (p *blocks) remove(list *int32) timed[int32] {
	bl := p.at(*list)
	bl.n--
	x := bl.items[bl.n]
	if bl.n == 0 {
		*list, bl.next, p.free = bl.next, p.free, *list
	}
	return x
}
