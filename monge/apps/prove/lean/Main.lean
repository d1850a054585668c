module
public meta import Monge.Serve
public meta def main (modules : List String) : IO Unit := Monge.serve modules
