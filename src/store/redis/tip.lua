local epoch, _, last = extent()
return { epoch, last }
