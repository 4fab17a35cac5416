"""Live documents: what a notebook is while somebody has it open.

```
handler   websocket of one page: who may do what, message by message
  rooms   the open rooms: open, close, save, be coherent with REST
   room   one open notebook: merge updates, save them, meet changes from outside
     ├─ store     the merge history of every notebook, in one SQLite file
     ├─ wire      messages of the y-websocket protocol
     ├─ writer    write outputs of cells whose page is not there
     ├─ outputs   whose turn that is (pure)
     └─ shape     between a notebook file and the form that is merged (pure)
```
"""
